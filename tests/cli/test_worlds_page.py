"""docs/worlds.md, followed to the letter: its world is checked, told, trained and asked."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from oocr_influence.cli import audit, generate, table, train_extractive, world
from oocr_influence.cli.arguments import parse
from oocr_influence.datasets.document_dataset import load_structured_dataset
from oocr_influence.results.finding import find_runs

PAGE = (Path(__file__).parents[2] / "docs" / "worlds.md").read_text(encoding="utf-8")
COMMANDS = {
    "audit": (audit.AuditArguments, audit.main),
    "generate": (generate.GenerateArguments, generate.main),
    "train_extractive": (train_extractive.TrainExtractiveArgs, train_extractive.main),
    "table": (table.TableArguments, table.main),
    "world": (world.WorldArguments, world.main),
}


def block(language):
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


def follow(lines, capsys):
    """Run the page's commands on the page's file; what each printed, by its first two words."""
    Path("lighthouses.yaml").write_text(block("yaml"), encoding="utf-8")
    said = {}
    for line in lines:
        oocr, command, *words = shlex.split(line)
        assert oocr == "oocr"
        arguments, main = COMMANDS[command]
        assert main(parse(arguments, words)) == 0, line
        said[command, words[0]] = capsys.readouterr().out
    return said


def test_the_page_leads_from_a_file_to_a_dataset(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    said = follow(block("bash").splitlines()[:4], capsys)
    assert "lighthouses.yaml is a usable world: 4 entities, 12 facts" in said["world", "check"]
    dataset = load_structured_dataset("lighthouses.json")
    counts = dataset.metadata["counts"]
    assert counts["synthetic_documents"] == 6 * 3 * 6
    assert counts["distractor_documents"] == 2 * 6
    assert counts["control_sets"] > 0
    audited = said["audit", "lighthouses.json"]
    assert "lighthouses.json: within every limit" in audited
    assert "Facts come from world 'lighthouses'" in audited


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the default of 1000 pretraining documents")
def test_the_page_leads_from_a_file_to_an_answer(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    said = follow(block("bash").splitlines(), capsys)
    assert len(find_runs(Path("outputs"))) == 1
    for asked in ("keeper_by_island_first_hop", "two_hop", "control: unmentioned"):
        assert asked in said["table", "outputs"]


def test_the_page_names_every_theme_and_every_key():
    themes = Path(generate.__file__).parents[1] / "documents" / "grammar" / "themes"
    for theme in themes.glob("*.yaml"):
        assert f"`{theme.stem}`" in PAGE or theme.stem == "general"
    keys = {*world.World.model_fields, "forbidden", "must_not_reveal", "colour", "first_hop"}
    for key in keys | {"distractor", "few_shot", "formats", "merge_on", "file"}:
        assert re.search(rf"\b{key}\b", PAGE), key
