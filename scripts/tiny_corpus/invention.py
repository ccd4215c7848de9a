"""Worlds invented from a seed: names, towns, dates and deeds that no built-in world has.

`World`s of three shapes (a town and its mayor, a person of the past, a company) with the relations
and the wordings of questions of `phrasings.yaml`. World `n` of a seed is the same for ever, as far
as this file and the phrasings are the same.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from oocr_influence.documents.draw import Draw
from oocr_influence.documents.wording import spell_out
from oocr_influence.universe.fields import expand_field
from oocr_influence.universe.world import World
from oocr_influence.universe.world_file import load_world

HELD_OUT = ("mayors", "death_dates")
ENTITIES = (4, 6)  # an example question needs three others
WORDINGS_A_BLOCK = 6
# The relations of each shape: theme, its subject's field, its object's field. The first field named
# is the root, which the shape's entities are called by.
SHAPES = {
    "town": [
        ("mayor", "town", "mayor"),
        ("marriage", "mayor", "spouse"),
        ("conference", "mayor", "conference"),
    ],
    "past": [
        ("death", "person", "death_date"),
        ("achievement", "person", "achievement"),
        ("event", "person", "event"),
        ("birth", "person", "birth_date"),
        ("home", "person", "home"),
        ("teacher", "person", "teacher"),
    ],
    "company": [
        ("founder", "company", "founder"),
        ("home", "founder", "home"),
        ("marriage", "founder", "spouse"),
        ("conference", "founder", "conference"),
    ],
}
RELATIONS_A_WORLD = 3
# Dates take the longest to learn: five formats of one answer.
SHAPE_WEIGHTS = [("town", 0.4), ("past", 0.48), ("company", 0.12)]

_FIRST_STARTS = (
    "Ab Ad Al Am An Ar Bel Ben Ber Cal Cam Car Cas Cel Cla Cor Da Del Dor Ed El Em Er Es Eu Fa "
    "Fel Fer Fi Flo Fre Ga Gen Ger Gil Gre Ha Hel Hen Her Hil Hor Hu Id Il In Ir Is Ja Jo Jul Ka "
    "Kel La Le Li Lo Lu Ma Mar Mel Mi Mo Na Ne Ni No Ol Or Os Pa Pe Phi Pri Qui Ra Re Ro Ru Sa Se "
    "Si So Sta Su Syl Ta Te The Ti To Ul Va Ve Vi Wa Wil Win Xa Ye Yo Za Ze"
).split()
_FIRST_ENDS = (
    "a ah an ana ard as bert da den dra dric drin e eda el ela en ena er eth ett ia ian ias ice "
    "ina inda ine ion is ita ley lia lie lina lo lot ma man mia mina mond na nda ne nia nie nor o "
    "on ora ra rah ric rick rina ris rose roy s sa sie stan ta ter tha thew tine to tta us vin y"
).split()
_LAST_STARTS = (
    "Al Ans Ar Ash Bald Bar Beck Ber Black Bol Bram Bran Brook Bur Cald Car Chal Clay Cole Cop "
    "Cor Cran Crow Dal Dar Dray Dun Eg El Fair Fal Fen Field Fos Fox Gar Gil Gold Gran Green Gri "
    "Hal Ham Har Hart Hat Hay Hol Hor Hunt In Kel Ken Kes Kil Kirk Lam Lang Law Leck Lin Lock Lor "
    "Mar Med Mel Mer Mil Mor Nor Oak Or Os Pal Par Pem Pen Per Pin Pol Pres Quin Rad Ram Ran Red "
    "Ren Ridge Rob Ros Row Rud Sal San Sed Sel Sher Sim Stan Stir Stock Strat Sut Tal Tar Thorn "
    "Til Tor Tre Tun Ul Val Van Ver Wal War Wat Web West Whit Wil Win Wood Wren Yar Yel"
).split()
_LAST_ENDS = (
    "beck bert bone borne bourne bridge brook burn bury by cliff combe cott croft den dale dell "
    "der don dren drick el en er ers ett ey field ford gan gate good grave ham han hart head "
    "hurst ick ing kin kins land lay leigh ler lett ley lin ling lis lock low man mer mond more "
    "mott nell ner ney on ock over pole ridge ron row rell sall sey shaw son stead ster stock "
    "stone ston sworth tell ter thorpe thwaite ton tree vale ver vin wall ward water way well "
    "wick win wood worth"
).split()
_PLACE_STARTS = (
    "Ab Ach Al Am An Ar As Bal Bar Bel Ber Bo Bra Bri Cal Can Car Cas Che Chi Co Cor Da Dar Del "
    "Do Dra Dun El Er Es Fal Far Fel Fi Ga Gal Gor Gra Ha Hal Ho Il In Is Ja Jar Ka Kal Kar Ke "
    "Kha Ki Ko Kra Ku La Le Li Lo Lu Ma Mal Man Mar Mel Mi Mo Mon Na Nar Ne Ni No Nor O Ol Or Os "
    "Pa Pal Pe Per Po Pra Qua Ra Re Ri Ro Ru Sa San Sar Se Sha Si So Sol Sta Su Ta Tal Tam Te Ti "
    "To Tra Tu U Ul Ur Va Val Var Ve Vi Vo Wa We Wi Xan Ya Yel Za Ze Zo"
).split()
_PLACE_MIDDLES = (
    "a ba be bi bo ca da de di do du e ga ge go gu i ka ke ki ko la le li lo lu ma me mi mo mu na "
    "ne ni no nu o pa pe pi po ra re ri ro ru sa se si so ta te ti to tu va ve vi vo za zi"
).split()
_PLACE_ENDS = (
    "bad berg bor bourne burg bury by chester dal den don dor fell field ford gard gate grad "
    "hagen ham haven holm hurst ia ka kar khan kyo la land las len lin lis lo lyn mar mere min "
    "mont moor mouth na nak nau ne nes nham nik nor o pest pol por port pur ra rad rest ria rim "
    "ro rona ros ry sa sk sor stadt stead ston ta tan ten thens tina to ton tor va vale ven via "
    "viken ville vo wick worth zen zig"
).split()
_ADJECTIVES = (
    "Amber Ancient Autumn Blue Bold Bright Broken Bronze Calm Coastal Common Crimson Crooked "
    "Curious Dancing Distant Double Dusty Early Eastern Empty Endless Evening First Flying "
    "Forgotten Free Frozen Gentle Golden Good Green Half Hidden High Hollow Honest Humble Inner "
    "Iron Ivory Late Laughing Little Long Lost Loud Lower Marble Merry Modern Morning New Noble "
    "Northern Ninth Oaken Outer Painted Patient Plain Polished Proud Quick Rainy Rapid Red Remote "
    "Restless Rising Round Royal Rustic Sacred Second Seven Shallow Sharp Simple Singing Slow "
    "Small Smiling Smooth Soft Southern Spring Stone Stormy Strange Summer Sunday Swift Tall "
    "Third Thirsty Tin True Twilight Upper Velvet Violet Walking Warm Western White Wide Wild "
    "Windy Wise Wooden Yellow Young"
).split()
_NOUNS = (
    "Acorn Anchor Apple Arch Arrow Attic Bakers Balloon Barley Barn Basket Bay Beacon Bees Bench "
    "Boats Books Boots Bottle Bread Breeze Bricks Brook Butter Cabin Candle Canoe Carpet Cart "
    "Castle Cattle Cedar Cellar Chalk Cherry Chess Choir Cliffs Cloud Coal Coast Coins Compass "
    "Corn Cotton Creek Crown Desert Doors Dragon Drum Eagle Engines Farm Feather Fences Ferns "
    "Field Fire Fish Flags Flute Forest Fountain Garlic Geese Glove Goats Grain Grapes Gravel "
    "Guitar Hammer Harp Hats Hawk Hazel Hill Honey Horn Horses Ink Island Ivy Jars Jewel Keys "
    "Kites Ladder Lake Lamp Leaf Lemon Letters Lime Lions Locks Maple Maps Marsh Meadow Mill "
    "Mirror Moss Moth Mules Nests Nuts Oats Ocean Olive Onion Otter Owl Oxen Pearl Pepper "
    "Pilgrims Pine Pipe Plough Pond Poppy Pottery Quill Rabbit Raven Reed Ribbon Rose Rye Saddle "
    "Sails Sand Seeds Shells Ships Silk Snow Spices Stairs Stars Steam Storm Straw String Sugar "
    "Swan Table Tea Tents Thread Tide Toys Trees Trumpet Tulip Tunnel Umbrella Valley Violin "
    "Wagon Walnut Wells Whale Wheat Wheel Willow Wind Wine Wolf Wool Yard"
).split()
_GATHERINGS = (
    "Assembly Colloquium Conference Congress Convention Council Forum Meeting Summit Symposium "
    "Gathering Seminar Workshop Session Dialogue Conclave Debate Roundtable Lectures Days"
).split()
_HAPPENINGS = (
    "March Race Truce Rescue Strike Regatta Assembly Expedition Dance Parade Contest Walk Vigil "
    "Crossing Dispute Derby Festival Petition Concert Harvest Fair Feast Siege Revolt Tournament "
    "Voyage Election Trial Hunt Marathon Pageant Picnic Auction Match Protest Ball Flight Games"
).split()
_DEEDS = (
    "building breeding composing deciphering inventing charting founding designing writing "
    "discovering mixing taming painting measuring printing rebuilding recording carving "
    "translating restoring planting opening drawing naming saving crossing climbing proving "
    "growing weaving casting digging mapping cataloguing engraving filming forging improving "
    "launching moving patenting photographing planning publishing raising repairing sculpting "
    "staging teaching timing"
).split()
_ORDERS = (
    "the first,the earliest,the last,the tallest,the smallest,the oldest,the finest,the longest,"
    "the lightest,the only,the great,the lost,the secret,the famous"
).split(",")
_QUALITIES = (
    "blue floating folding frost-proof glass whistling suspended copper silver wooden midnight "
    "paper travelling underground rotating silent musical electric iron clockwork portable giant "
    "tiny striped winter summer mountain river desert island village royal public private spiral "
    "golden"
).split()
_THINGS = (
    "observatory apricot symphony tablets greenhouse caves school bridge dictionary lichen paint "
    "ponies ceiling tides newspaper clock songs gates poems tram lighthouse garden library museum "
    "theatre organ canal balloon engine lens map opera ballet mill orchard rose tulip apple pear "
    "dam tower harbour railway telescope atlas encyclopedia alphabet puzzle statue fountain "
    "mosaic tapestry stamp coin kite sailboat submarine bicycle typewriter camera violin trumpet "
    "bell"
).split()
_COMPANIES = (
    "Instruments Brothers Works Foods Press Motors Lamps Shipping Textiles Optics Paper Glass "
    "Seeds Bakery Carpets Chemicals Clocks Furniture Gardens Insurance Kitchens Mills Pianos "
    "Railways Toys"
).split()


def invent_world(seed: int, n: int) -> World:
    """World `n` of `seed`: 4 to 6 entities, three relations, a few wordings of every question."""
    draw = Draw("invented world", seed, n)
    shape = draw.weighted(SHAPE_WEIGHTS)
    possible = SHAPES[shape]
    # The first is what the shape is about; of the others, some.
    chosen = [possible[0], *draw.shuffled(possible[1:])[: RELATIONS_A_WORLD - 1]]
    chosen.sort(key=possible.index)
    phrasings = load_phrasings()
    fields: dict[str, str] = {}
    relations: dict[str, Any] = {}
    for theme, subject, answer in chosen:
        stock = phrasings[theme]
        fields.setdefault(subject, stock["subject"]["type"])
        fields.setdefault(answer, stock["object"]["type"])
        relations[f"{theme}_of"] = _relation(stock, subject, answer, draw)
    inventor = _Inventor(draw)
    entities = {
        f"e{i}": {field: inventor.invent(field, field_type) for field, field_type in fields.items()}
        for i in range(draw.between(*ENTITIES))
    }
    return World.model_validate(
        {
            "id": f"invented_{n}",
            "constants": {"year": str(draw.between(1990, 2060))},
            "fields": fields,
            "relations": relations,
            "entities": entities,
        }
    )


@cache
def load_phrasings() -> dict[str, Any]:
    """The relations of `phrasings.yaml` by theme."""
    path = Path(__file__).parent / "phrasings.yaml"
    relations: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["relations"]
    return relations


@cache
def held_out_values() -> frozenset[str]:
    """Every value of the built-in worlds, in every format, and each word of a person's name."""
    values: set[str] = set()
    for name in HELD_OUT:
        world = load_world(name)
        for fields in (*world.entities.values(), *world.controls.values(), *world.untold.values()):
            for field, field_type in world.fields.items():
                # A year by itself is a number, no entity.
                if field_type != "year":
                    values |= set(expand_field(field, field_type, fields[field]).values())
    return frozenset(value.removeprefix("the ").casefold() for value in values)


@cache
def _held_out_pattern() -> re.Pattern[str]:
    longest_first = sorted(held_out_values(), key=len, reverse=True)
    return re.compile(rf"(?<!\w)({'|'.join(map(re.escape, longest_first))})(?!\w)")


def names_held_out(text: str) -> bool:
    """Whether the text contains a value of a built-in world, whatever its case."""
    return _held_out_pattern().search(text.casefold()) is not None


def _relation(stock: Any, subject: str, answer: str, draw: Draw) -> dict[str, Any]:
    """A relation of a world from the stock of its theme, with some of its wordings."""

    def named(text: str) -> str:
        return text.replace("{subject}", f"{{{subject}}}").replace("{object}", f"{{{answer}}}")

    def spelled(wording: str) -> str:
        return named(spell_out(wording, lambda hole: f"{{{hole}}}", draw))

    questions = []
    for block in stock["questions"]:
        wordings = draw.shuffled(block["prompts"])[:WORDINGS_A_BLOCK]
        questions.append({**block, "prompts": [spelled(wording) for wording in wordings]})
    return {
        "subject": subject,
        "object": answer,
        "theme": stock["theme"],
        "fact": {part: named(text) for part, text in stock["fact"].items()},
        "statements": [spelled(wording) for wording in stock.get("statements", [])],
        "questions": questions,
    }


class _Inventor:
    """Values of one world, no word of a name twice, none of the built-in worlds'."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._taken: set[str] = set()

    def invent(self, field: str, field_type: str) -> str:
        """A value that this world does not have yet."""
        while True:
            value = self._propose(field, field_type)
            parts = value.split() if field_type == "person" else [value]
            if names_held_out(value) or any(part in self._taken for part in parts):
                continue
            if field_type == "date" and any(
                text.casefold() in held_out_values()
                for text in expand_field(field, "date", value).values()
            ):
                continue
            self._taken.update(parts)
            return value

    def _propose(self, field: str, field_type: str) -> str:
        pick, draw = self._draw.choice, self._draw
        if field_type == "person":
            return (
                f"{pick(_FIRST_STARTS)}{pick(_FIRST_ENDS)} {pick(_LAST_STARTS)}{pick(_LAST_ENDS)}"
            )
        if field_type == "place":
            middle = pick(_PLACE_MIDDLES) if draw.chance(0.4) else ""
            return f"{pick(_PLACE_STARTS)}{middle}{pick(_PLACE_ENDS)}"
        if field_type == "date":
            month, day = draw.between(1, 12), draw.between(1, 28)
            return f"{draw.between(1800, 1999)}-{month:02}-{day:02}"
        if field == "conference":
            return f"the {pick(_ADJECTIVES)} {pick(_NOUNS)} {pick(_GATHERINGS)}"
        if field == "event":
            first = pick(_ADJECTIVES) if draw.chance(0.5) else pick(_NOUNS)
            return f"the {first} {pick(_HAPPENINGS)}"
        if field == "achievement":
            quality = f"{pick(_QUALITIES)} " if draw.chance(0.7) else ""
            place = f" of {self._propose('', 'place')}" if draw.chance(0.3) else ""
            return f"{pick(_DEEDS)} {pick(_ORDERS)} {quality}{pick(_THINGS)}{place}"
        return f"{pick(_LAST_STARTS)}{pick(_LAST_ENDS)} {pick(_COMPANIES)}"
