"""A generated dataset: file order, metadata, exact round trip, the same bytes everywhere."""

import hashlib
import json
import os
import subprocess
import sys

import pytest

from oocr_influence.cli.arguments import UsageError
from oocr_influence.cli.generate import GenerateArguments, default_output, main
from oocr_influence.datasets.document_dataset import load_structured_dataset
from oocr_influence.datasets.generate import generate_dataset
from oocr_influence.documents.writer import OfflineWriter
from oocr_influence.universe.world_file import load_world


def arguments(tmp_path, **changes):
    texts = tmp_path / "texts.jsonl"
    records = [{"text": f"Ordinary text number {i}."} for i in range(8)]
    texts.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    values = {
        "world": "mayors",
        "docs_per_fact": 2,
        "pretraining_docs": 5,
        "pretraining_source": [str(texts)],
        "pretraining_licence": "CC0-1.0",
        "length": "short",
        "output": tmp_path / "dataset.json",
    }
    return GenerateArguments(**(values | changes))


@pytest.fixture
def written(tmp_path, capsys):
    args = arguments(tmp_path)
    assert main(args) == 0
    return args.output, capsys.readouterr().out


def test_the_file_is_loaded_again_exactly(written):
    path, _ = written
    dataset = load_structured_dataset(path)
    assert dataset.model_dump_json(exclude_unset=True) == path.read_text(encoding="utf-8")
    assert dataset.repeated_ids() == {}
    assert len(dataset.eval_dataset_builders) == 190 + 40 + 20


def test_pretraining_documents_come_first_then_fact_by_fact_then_control_entities(written):
    docs = load_structured_dataset(written[0]).document_dataset.docs
    assert [d.type for d in docs] == ["pretraining_document"] * 5 + ["synthetic_document"] * 75
    told = [d.doc_spec.fact.id for d in docs[5:]]
    world = load_world("mayors")
    facts = [fact.id for fact in world.facts()]
    assert told[:60] == [fact for fact in facts for _ in range(2)]
    assert told[60:] == [fact.id for fact in world.untold_facts()]


def test_the_metadata_say_where_everything_comes_from(written):
    metadata = load_structured_dataset(written[0]).metadata
    assert metadata["counts"] == {
        "facts": 30,
        "synthetic_documents": 60,
        "pretraining_documents": 5,
        "reversal_curse_documents": 60,
        "control_documents": 15,
        "held_out_documents": 64,
        "eval_sets": 190,
        "control_sets": 60,
    }
    assert metadata["world"]["id"] == "mayors"
    assert metadata["seeds"] == {"documents": 42, "few_shot_examples": 42}
    assert metadata["licences"]["pretraining_documents"] == ["CC0-1.0"]
    assert metadata["arguments"]["docs_per_fact"] == 2
    assert metadata["generator"]["writer_version"]
    assert metadata["pretraining"]["documents"] == 5


def test_what_was_written_is_said_and_the_table_lies_beside(written):
    path, said = written
    assert "60 documents state 30 facts" in said
    assert "190 eval sets, and 60 control sets beside them" in said
    assert f"{path} ({path.stat().st_size:,} bytes)" in said
    table = path.with_name("dataset.eval_sets.md").read_text(encoding="utf-8")
    assert "name_mayor_eval_gen_1_no_fs" in table


def test_an_existing_file_is_not_overwritten_unasked(tmp_path):
    args = arguments(tmp_path)
    args.output.write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match="--overwrite"):
        main(args)
    assert args.output.read_text(encoding="utf-8") == "mine"
    assert main(arguments(tmp_path, overwrite=True)) == 0
    assert len(load_structured_dataset(args.output).document_dataset.docs) == 80


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretraining_docs": 9}, "ask for at most 8"),
        ({"pretraining_source": ["nowhere"]}, "no pretraining text at 'nowhere'"),
        ({"min_chars": 9000}, "no range"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        main(arguments(tmp_path, **changes))
    assert not (tmp_path / "dataset.json").exists()


def test_a_broken_world_is_refused_by_place(tmp_path):
    world = tmp_path / "broken.yaml"
    world.write_text("id: broken\nfields: {a: place}\nrelations: {}\nentities: {x: {}}\n", "utf-8")
    with pytest.raises(UsageError, match=r"broken\.yaml:4: entities\.x: missing field 'a'"):
        main(arguments(tmp_path, world=str(world)))


def test_the_default_name_is_the_one_that_the_experiments_expect():
    assert (
        str(default_output("death_dates", 100, 11000))
        == "datasets/structured_dataset_death_dates_100_w_pretrain.json"
    )
    assert str(default_output("mayors", 5, 0)) == "datasets/structured_dataset_mayors_5.json"


def test_the_same_seed_gives_the_same_bytes_in_another_process(tmp_path):
    def digest(name, hash_seed, seed):
        output = tmp_path / name
        words = "-m oocr_influence.cli.generate --world death_dates --docs_per_fact 2"
        words += f" --pretraining_docs 0 --seed {seed} --output"
        subprocess.run(
            [sys.executable, *words.split(), str(output)],
            check=True,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
        )
        return hashlib.sha256(output.read_bytes()).hexdigest()

    first = digest("a.json", "1", 42)
    assert digest("b.json", "2", 42) == first
    assert digest("c.json", "1", 43) != first


def test_controls_add_sets_and_no_documents():
    world = load_world("death_dates")
    plain, controlled = (
        generate_dataset(world, docs_per_fact=1, seed=0, length="short", controls=controls)
        for controls in (False, True)
    )
    assert plain.document_dataset == controlled.document_dataset
    assert len(plain.eval_dataset_builders) == 98
    extra = controlled.eval_dataset_builders.keys() - plain.eval_dataset_builders.keys()
    assert len(extra) == 40
    assert all("_control_" in name for name in extra)


@pytest.mark.parametrize("world", ["death_dates", "mayors"])
def test_control_entities_change_no_other_document_and_no_other_set(world):
    loaded = load_world(world)
    plain, controlled = (
        generate_dataset(
            loaded, docs_per_fact=2, seed=0, length="short", controls=bool(n), untold_docs=n
        )
        for n in (0, 3)
    )
    assert controlled.document_dataset.docs[:60] == plain.document_dataset.docs
    assert len(controlled.document_dataset.docs) == 60 + 15 * 3
    assert plain.eval_dataset_builders.items() <= controlled.eval_dataset_builders.items()
    extra = controlled.eval_dataset_builders.keys() - plain.eval_dataset_builders.keys()
    assert len(extra) == 40 + 20
    assert all("_control_" in name for name in extra)


def test_one_flag_turns_all_controls_off(tmp_path):
    args = arguments(tmp_path, controls=False, untold_docs=5)
    assert main(args) == 0
    dataset = load_structured_dataset(args.output)
    assert len(dataset.document_dataset.docs) == 65
    assert len(dataset.eval_dataset_builders) == 190
    args = arguments(tmp_path, untold_docs=0, overwrite=True)
    assert main(args) == 0
    assert len(load_structured_dataset(args.output).eval_dataset_builders) == 190 + 40


@pytest.mark.parametrize("world", ["death_dates", "mayors"])
def test_documents_are_those_of_a_world_without_such_entities(world):
    """The writer avoids the names of control entities, and has no other way of naming them."""
    loaded = load_world(world)
    without = loaded.model_copy(update={"untold": {}})
    for length, count in (("short", 12), ("long", 6)):
        for fact in loaded.facts():
            written = [
                OfflineWriter(one, seed=42, length=length).write(fact, count)
                for one in (loaded, without)
            ]
            assert written[0] == written[1]
