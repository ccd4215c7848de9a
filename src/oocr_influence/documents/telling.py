"""What the offline writer needs to know of a relation, and whether it can be told as asked."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from oocr_influence.documents.composition import Material
from oocr_influence.documents.draw import Draw
from oocr_influence.documents.grammar import Grammar, Theme
from oocr_influence.documents.sentences import REFERENCES, REFERENCES_BY_TYPE, Changes
from oocr_influence.documents.variety import Variety
from oocr_influence.documents.wording import one_of, order_of
from oocr_influence.universe.fields import FORMATS, plain_format
from oocr_influence.universe.world import World


class WriterError(ValueError):
    """A fact that the grammar cannot tell as asked; the message says what to change."""


@dataclass(frozen=True)
class Told:
    """One relation, as the writer tells it."""

    material: Material
    theme: str
    roles: dict[str, str]  # hole -> field of the entity that fills it
    changes: Changes | None  # of every document; None: as drawn


def told(
    world: World, name: str, grammar: Grammar, *, seed: int, both_orders: bool, variety: Variety
) -> Told:
    """How the world's relation `name` is told; `both_orders`: some documents name the object first.

    Raises WriterError.
    """
    relation = world.relations[name]
    theme = grammar.themes.get(relation.theme)
    if theme is None:
        raise WriterError(
            f"relation '{name}' has the theme '{relation.theme}'; "
            f"themes are {', '.join(grammar.themes)}"
        )
    roles = _roles(world, name, theme)
    material = _material(world, name, theme, roles)
    if both_orders and not material.reversed:
        raise WriterError(
            f"relation '{name}' has no statement that names {{{relation.object}}} before "
            f"{{{relation.subject}}}; add one under 'statements', or set reversed_share to 0"
        )
    changes = None
    if replace(variety, max_overlap=1) != Variety(max_overlap=1):
        subject_type = world.fields[relation.subject]
        changes = Changes(
            paraphrases=_paraphrases(name, material, seed, both_orders, variety.paraphrases),
            in_stock_order=not variety.permute_sentences,
            name_repetition=variety.name_repetition,
            reference=REFERENCES.get(relation.theme, REFERENCES_BY_TYPE[subject_type]),
        )
    return Told(material=material, theme=relation.theme, roles=roles, changes=changes)


def _roles(world: World, name: str, theme: Theme) -> dict[str, str]:
    relation = world.relations[name]
    roles: dict[str, str] = {}
    for role, field, expected in (
        ("subject", relation.subject, theme.subject),
        ("object", relation.object, theme.object),
    ):
        field_type = world.fields[field]
        if expected not in ("any", field_type):
            raise WriterError(
                f"relation '{name}': the theme '{relation.theme}' needs a {expected} as its "
                f"{role}, and '{field}' is a {field_type}"
            )
        for answer_format in FORMATS[field_type]:
            suffix = "" if answer_format == plain_format(field_type) else f"_{answer_format}"
            roles[role + suffix] = field + suffix
    return roles


def _material(world: World, name: str, theme: Theme, roles: dict[str, str]) -> Material:
    """The relation's sentences in words of subject and object, sorted by order."""
    relation = world.relations[name]
    role_of = {field: role for role, field in roles.items()}
    own = [relation.fact.prompt + relation.fact.completion + ".", *relation.statements]
    own = [re.sub(r"\{(\w+)\}", lambda m: f"{{{role_of.get(m[1], m[1])}}}", text) for text in own]
    statements = list(dict.fromkeys([*own, *theme.statements]))
    return Material(
        forward=[s for s in statements if order_of(s) != "reversed"],
        reversed=[s for s in statements if order_of(s) == "reversed"],
        theme=theme,
    )


def _paraphrases(
    name: str, material: Material, seed: int, both_orders: bool, wanted: int | None
) -> dict[str, list[str]]:
    """By order, the wordings that alone state the relation's facts; a larger number begins with
    those of a smaller. Of alternatives within a wording one is kept: each is one sentence."""
    if wanted is None:
        return {}
    kept = {}
    for order, wordings in (("forward", material.forward), ("reversed", material.reversed)):
        if order == "forward" or both_orders:
            if wanted > len(wordings):
                raise WriterError(
                    f"relation '{name}' has {len(wordings)} {order} wordings, and paraphrases is "
                    f"{wanted}; ask for at most {len(wordings)}, or add some under 'statements'"
                )
            chosen = Draw("paraphrases", seed, name, order).shuffled(wordings)[:wanted]
            kept[order] = [one_of(w, Draw("paraphrase", seed, w)) for w in chosen]
    return kept
