"""`oocr world`: faults by line, pages that show a world, new worlds that are usable at once."""

import re

import pytest

from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.cli.world import WorldArguments, main
from oocr_influence.universe.world_file import built_in_worlds, load_world
from oocr_influence.universe.world_yaml import schema_text


@pytest.fixture
def world(capsys, tmp_path, monkeypatch):
    """What the command prints, run in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        assert main(parse(WorldArguments, words)) == 0
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("name", built_in_worlds())
def test_a_built_in_world_is_usable(world, name):
    said = world("check", name)
    loaded = load_world(name)
    assert said.startswith(f"{name} is a usable world: 10 entities, 30 facts, ")
    assert re.search(r"90 trial documents state their fact", said)
    notes = re.findall(r"note: (.*)", said)
    if name == "mayors":
        assert sum("joins the facts of" in note for note in notes) == len(loaded.two_hops) == 3
        assert any("Tokyo" in note for note in notes)
    else:
        assert notes == []


def test_a_broken_world_is_refused_with_lines_and_one_that_cannot_be_told_with_the_word(
    world, tmp_path
):
    made = world("new", "firms", "--entities", "4")
    assert "firms.yaml" in made
    text = (tmp_path / "firms.yaml").read_text(encoding="utf-8")
    (tmp_path / "bad.yaml").write_text(text.replace("product: text", "product: txt"), "utf-8")
    with pytest.raises(UsageError, match=r"bad\.yaml:\d+: fields\.product: .*'person', 'date'"):
        world("check", "bad.yaml")
    common = re.sub(r"product: the [^,]*", "product: of", text, count=1)
    (tmp_path / "untellable.yaml").write_text(common, "utf-8")
    with pytest.raises(UsageError, match=r"'of', which documents of '.*' must not reveal"):
        world("check", "untellable.yaml")


@pytest.mark.parametrize("like", built_in_worlds())
def test_a_new_world_is_usable_and_the_same_again(world, tmp_path, like):
    said = world("new", "mine", "--like", like, "--entities", "12", "--seed", "3")
    made = load_world(tmp_path / "mine.yaml")
    assert made.id == "mine"
    assert (len(made.entities), len(made.controls), len(made.untold)) == (12, 12, 18)
    assert made.relations == load_world(like).relations
    assert ("two-hop questions left out" in said) == (like == "mayors")
    assert "is a usable world: 12 entities, 36 facts" in world("check", "mine.yaml")
    first = (tmp_path / "mine.yaml").read_bytes()
    world("new", "mine", "--like", like, "--entities", "12", "--seed", "3", "--overwrite")
    assert (tmp_path / "mine.yaml").read_bytes() == first


def test_written_entities_are_kept_beside_invented_ones(world, tmp_path):
    world("new", "more", "--like", "companies", "--entities", "15", "--keep", "--output", "x.yaml")
    made, own = load_world(tmp_path / "x.yaml"), load_world("companies")
    assert list(made.entities.items())[:10] == list(own.entities.items())
    assert len(made.entities) == 15
    # From there it goes on by hand: another name in the file is another fact.
    text = (tmp_path / "x.yaml").read_text(encoding="utf-8")
    (tmp_path / "x.yaml").write_text(text.replace("Eleonora Strickland", "Nora Sand"), "utf-8")
    assert load_world(tmp_path / "x.yaml").facts()[0].completion == " Nora Sand"


def test_a_page_shows_facts_documents_and_questions(world):
    said = world("show", "companies")
    assert "| harrowick_looms | Harrowick Looms | Eleonora Strickland | 1887 |" in said
    assert "founder (company → founder)" in said
    assert "documents must not reveal: product, headquarters" in said
    assert said.count("## ") == 4
    assert "| founder_by_product | two_hop | qa | full | 6 | Q: Who founded" in said
    assert "founder_eval_qa_4_with_fs" not in said
    assert "| founder_eval_qa_4_with_fs |" in world("show", "companies", "--all_sets")
    assert [line.split()[0] for line in world("show").splitlines()] == built_in_worlds()


def test_the_schema_is_the_published_one(world):
    assert world("schema") == schema_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["frob"], "say one of check, show, new, schema"),
        (["check"], "takes one world, not none"),
        (["check", "a", "b"], "takes one world, not 2"),
        (["check", "mayors", "--seed", "1"], "has no use for --seed"),
        (["new", "x", "--all_sets"], "has no use for --all_sets"),
        (["new", "mayors"], "built in"),
        (["new", "Big World"], "lower-case"),
        (["new", "x", "--entities", "0"], "greater than or equal to 1"),
        (["new", "x", "--keep", "--entities", "3"], "'companies' has 10 to keep"),
    ],
)
def test_what_makes_no_sense_is_refused(world, words, message):
    with pytest.raises(UsageError, match=message):
        world(*words)


def test_an_existing_file_is_not_replaced_unasked(world, tmp_path):
    (tmp_path / "x.yaml").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="--overwrite"):
        world("new", "x")
    assert (tmp_path / "x.yaml").read_text(encoding="utf-8") == "mine"
    with pytest.raises(FileNotFoundError, match="no world 'nowhere'"):
        world("check", "nowhere")
