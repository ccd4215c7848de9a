"""A generated dataset: file order, metadata, exact round trip, the same bytes everywhere."""

import hashlib
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.cli.generate import default_output, main
from oocr_influence.cli.generate_options import GenerateArguments
from oocr_influence.datasets.document_dataset import load_structured_dataset
from oocr_influence.datasets.generate import generate_dataset
from oocr_influence.datasets.held_out import loss_samples
from oocr_influence.datasets.selection import TrainingDocument
from oocr_influence.documents.writer import OfflineWriter
from oocr_influence.universe.invention import with_invented
from oocr_influence.universe.world_file import built_in_worlds, load_world, parse_world


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


def test_settings_of_variety_are_recorded_and_reach_the_writer(tmp_path, capsys):
    args = parse(
        GenerateArguments,
        [
            *("--world", "mayors", "--docs_per_fact", "4", "--pretraining_docs", "0"),
            *("--length", "75-110", "--paraphrases", "1", "--no-permute_sentences"),
            *("--name_repetition", "0.25", "--max_overlap", "0.6", "--reversed_share", "0"),
            *("--output", str(tmp_path / "dataset.json")),
        ],
    )
    assert main(args) == 0
    metadata = load_structured_dataset(args.output).metadata
    stated = {
        "length": "75-110",
        "paraphrases": 1,
        "permute_sentences": False,
        "name_repetition": 0.25,
        "max_overlap": 0.6,
        "reversed_share": 0.0,
    }
    assert stated.items() <= metadata["arguments"].items()
    assert stated.items() <= metadata["documents"].items()
    found = metadata["diversity"]
    assert 75 <= found["words"]["least"] <= found["words"]["most"] <= 110
    assert found["documents"] == 120
    near = found["near_duplicates"]["documents"]
    redrawn = metadata["generator"]["near_duplicates_redrawn"]
    said = capsys.readouterr().out
    assert f"near-duplicates (≥ 0.5): {near}, {redrawn} drawn anew" in said
    assert f"{found['distinct_2']['number']:,.0f} 2-grams" in said
    assert f"documents of {found['words']['least']} to {found['words']['most']} words" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--length", "medium"], "length 'medium' is none"),
        (["--paraphrases", "0"], "paraphrases"),
        (["--writer", "llm", "--llm_model", "m", "--paraphrases", "2"], "goes with --writer off"),
    ],
)
def test_flags_that_do_not_fit_are_refused_before_anything_is_written(words, message):
    with pytest.raises(UsageError, match=message):
        parse(GenerateArguments, words)


def test_what_the_grammar_cannot_tell_ends_with_one_message_and_no_file(tmp_path):
    args = arguments(tmp_path, paraphrases=40)
    with pytest.raises(UsageError, match="relation 'name_mayor' has 14 forward wordings"):
        main(args)
    assert not args.output.exists()


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


# sha256, first 16 hex digits: documents, then eval sets, of seed 42. The writer's words, the worlds
# and the draws are what published datasets were made of: what moves these makes other datasets.
BYTES = {
    ("mayors", "short"): ("da8f12002bc932f8", "dfc95405b7b424af"),
    ("mayors", "long"): ("8e2ae5a62d59b166", "dfc95405b7b424af"),
    ("death_dates", "short"): ("4094dafec8c522b7", "17279fd17a85217d"),
    ("death_dates", "long"): ("24dfbe13efc8da3a", "17279fd17a85217d"),
}


@pytest.mark.parametrize(("world", "length"), BYTES)
def test_the_first_worlds_are_told_and_asked_as_ever(world, length):
    made = generate_dataset(
        load_world(world),
        docs_per_fact=3,
        seed=42,
        length=length,
        controls=True,
        untold_docs=2,
        held_out_docs=8,
    )
    sets = "".join(builder.model_dump_json() for builder in made.eval_dataset_builders.values())
    texts = (made.document_dataset.model_dump_json(), sets)
    digests = tuple(hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts)
    assert digests == BYTES[world, length]
    # A theme that they have no use for, and how entities might be invented, change nothing either.
    assert made.metadata["generator"]["grammar_digest"] == "95603f47e48cf314"
    known = {"mayors": "9a5acf5b0099a180", "death_dates": "502d435ddd3f8742"}
    assert made.metadata["world"]["digest"] == known[world]


RIVERS = """\
id: rivers
fields: {river: place, keeper: person, hymn: text}
relations:
  keeper:
    subject: river
    object: keeper
    fact: {prompt: "The keeper of {river} is", completion: " {keeper}"}
    statements: ["{keeper} keeps {river}."]
    questions:
      - {style: qa, prompts: ["Q: Who keeps {river}? A:"]}
  hymn:
    subject: river
    object: hymn
    distractor: true
    fact: {prompt: "At {river} they sing", completion: " {hymn}"}
    statements: ["{hymn} is sung at {river}."]
distractors:
  hills:
    world:
      id: hills
      fields: {hill: place, owner: person}
      relations:
        owner:
          subject: hill
          object: owner
          fact: {prompt: "{hill} belongs to", completion: " {owner}"}
          statements: ["{owner} owns {hill}."]
          questions:
            - {style: qa, prompts: ["Q: Who owns {hill}? A:"]}
      entities:
        a: {hill: Barrow Top, owner: Una Blake}
        b: {hill: Corn Brow, owner: Agnes Abbot}
entities:
  elm: {river: Elmbeck, keeper: Ida Stone, hymn: Bright Waters}
  ash: {river: Ashwater, keeper: Ned Fowl, hymn: Slow Waters}
  fir: {river: Firburn, keeper: Tom Reed}
"""


@pytest.mark.parametrize("controls", [True, False])
def test_a_world_without_controls_gets_no_empty_sets_and_one_is_told(tmp_path, capsys, controls):
    (tmp_path / "rivers.yaml").write_text(RIVERS, encoding="utf-8")
    world = str(tmp_path / "rivers.yaml")
    args = arguments(tmp_path, world=world, controls=controls)
    assert main(args) == 0
    dataset = load_structured_dataset(args.output)
    builders = dataset.eval_dataset_builders
    assert list(builders) == ["keeper_eval_qa_1_no_fs", "keeper_eval_qa_1_with_fs"]
    assert all(builder.eval_points for builder in builders.values())
    assert dataset.metadata["counts"]["control_sets"] == 0
    said = capsys.readouterr().out
    assert said.count("none under 'controls'") == controls
    assert said.count("none under 'untold'") == controls
    # Invented entities bring none either.
    args = arguments(tmp_path, world=world, controls=controls, entities=5, overwrite=True)
    assert main(args) == 0
    builders = load_structured_dataset(args.output).eval_dataset_builders
    assert [len(builder.eval_points) for builder in builders.values()] == [5, 5]
    assert capsys.readouterr().out.count("none under 'controls'") == controls


def test_controls_that_are_there_are_not_missed(written, tmp_path, capsys):
    assert "none under" not in written[1]
    assert main(arguments(tmp_path, untold_docs=0, overwrite=True)) == 0
    assert "none under" not in capsys.readouterr().out


def test_distractors_are_told_after_all_else_and_never_asked():
    world = parse_world(RIVERS)
    plain, told = (
        generate_dataset(world, docs_per_fact=4, seed=0, length="short", distractor_docs=n)
        for n in (0, 3)
    )
    docs = told.document_dataset.docs
    assert docs[:12] == plain.document_dataset.docs
    assert told.metadata["counts"]["distractor_documents"] == len(docs) - 12 == 2 * 3 + 2 * 3
    assert "distractor_documents" not in plain.metadata["counts"]
    assert told.eval_dataset_builders == plain.eval_dataset_builders
    assert list(told.eval_dataset_builders) == [
        "keeper_eval_qa_1_no_fs",
        "keeper_eval_qa_1_with_fs",
    ]
    for doc in docs[12:]:
        fact = doc.doc_spec.fact
        assert fact.template.metadata["distractor"] is True
        assert fact.completion.strip() in doc.completion
    universes = [doc.doc_spec.fact.universe_id for doc in docs[12:]]
    assert universes == ["rivers"] * 6 + ["hills"] * 6
    assert len({doc.id for doc in docs}) == len(docs)


def test_no_document_of_one_world_names_what_is_the_others():
    """Agnes Abbot is a name that the writer gives to people who only pass through."""
    world = parse_world(RIVERS)
    made = generate_dataset(world, docs_per_fact=40, seed=1, length="short", distractor_docs=40)
    for doc in made.document_dataset.docs:
        hills = doc.doc_spec.fact.universe_id == "hills"
        ours, theirs = ("Stone Fowl Reed Elmbeck Waters", "Blake Barrow Brow Abbot Agnes")
        for word in (ours if hills else theirs).split():
            assert f" {word}" not in doc.completion


def test_distractors_are_no_documents_of_trained_facts_when_losses_are_followed():
    world = parse_world(RIVERS)
    made = generate_dataset(
        world, docs_per_fact=2, seed=0, length="short", distractor_docs=2, held_out_docs=3
    )
    trained = [TrainingDocument((doc.id, 0), doc) for doc in made.document_dataset.docs]
    samples = loss_samples(made, trained, count=100, seed=0)
    assert len(samples["trained"]) == 6
    assert not any("Blake" in text or "Waters" in text for text in samples["trained"])


def test_entities_are_invented_beside_the_worlds_own(tmp_path, capsys):
    args = arguments(tmp_path, entities=12, entity_seed=3, docs_per_fact=1)
    assert main(args) == 0
    said = capsys.readouterr().out
    assert "two-hop questions left out" in said
    dataset = load_structured_dataset(args.output)
    assert dataset.metadata["world"]["entities"] == 12
    assert dataset.metadata["arguments"]["entity_seed"] == 3
    # 190 sets but for the 60 of two hops, of twelve questions each.
    trained = {n: b for n, b in dataset.eval_dataset_builders.items() if "_control_" not in n}
    assert len(trained) == 130
    assert {len(builder.eval_points) for builder in trained.values()} == {12}
    assert dataset.metadata["counts"]["facts"] == 36
    with pytest.raises(UsageError, match="--entities 9: world 'mayors' has 10 of its own"):
        main(arguments(tmp_path, entities=9, overwrite=True))


@settings(max_examples=12, deadline=None)
@given(
    name=st.sampled_from(built_in_worlds()),
    entities=st.integers(10, 20),
    seed=st.integers(0, 10**6),
    docs=st.integers(1, 3),
)
def test_any_dataset_has_ids_of_its_own_and_the_same_bytes_again(name, entities, seed, docs):
    world = with_invented(load_world(name), entities=entities, seed=seed)
    made, again = (
        generate_dataset(
            world, docs_per_fact=docs, seed=seed, length="short", controls=True, untold_docs=1
        )
        for _ in range(2)
    )
    assert made.model_dump_json() == again.model_dump_json()
    ids = [doc.id for doc in made.document_dataset.docs]
    assert len(set(ids)) == len(ids)
    texts = [doc.completion for doc in made.document_dataset.docs]
    assert len(set(texts)) == len(texts)
    for builder in made.eval_dataset_builders.values():
        prompts = [point.prompt for point in builder.eval_points]
        assert len(set(prompts)) == len(prompts)


def test_pretraining_text_that_names_an_entity_of_any_group_is_left_out(tmp_path, capsys):
    world = load_world("mayors")
    named = {
        group: world.feature_set(next(iter(keys))).fields["name_mayor"]
        for group, keys in world.groups.items()
    }
    assert set(named) == {"entities", "controls", "untold"}
    assert len(set(named.values())) == 3
    source = tmp_path / "web.jsonl"
    texts = [f"In number {i} a Paris street is described." for i in range(4)]
    told = [f"News of {name}, who was seen in town." for name in named.values()]
    source.write_text("\n".join(json.dumps({"text": t}) for t in [*texts, *told]))
    args = arguments(tmp_path, pretraining_docs=4, pretraining_source=[str(source)])
    assert main(args) == 0
    assert "left out: 3 names an entity" in capsys.readouterr().out
    dataset = load_structured_dataset(args.output)
    assert {d.completion for d in dataset.pretraining_documents} == set(texts)
    assert dataset.metadata["pretraining"]["left_out"] == {"names_an_entity": 3}


def test_an_amount_of_tokens_is_counted_by_the_tokenizer_that_is_named(tmp_path):
    from oocr_influence.models.tiny import tiny_tokenizer

    args = arguments(
        tmp_path, pretraining_tokens="0.03k", pretraining_tokenizer="olmo2-tiny"
    ).model_dump(exclude_unset=True, exclude={"pretraining_docs"})
    args = GenerateArguments(**args)
    assert args.pretraining_tokens == 30
    assert main(args) == 0
    dataset = load_structured_dataset(args.output)
    tokenizer = tiny_tokenizer()
    each = [
        len(tokenizer(d.completion, add_special_tokens=False)["input_ids"])
        for d in dataset.pretraining_documents
    ]
    assert sum(each) >= 30 > sum(each[:-1])
    assert dataset.metadata["pretraining"]["tokens of olmo2-tiny"] == sum(each)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretraining_tokens": 10}, "--pretraining_docs 5 and --pretraining_tokens 10"),
        ({"pretraining_tokenizer": "olmo2-tiny"}, "counts --pretraining_tokens"),
    ],
)
def test_amounts_that_contradict_each_other_are_refused(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        main(arguments(tmp_path, **changes))
    assert not (tmp_path / "dataset.json").exists()


@pytest.mark.parametrize(("amount", "n"), [("2.3M", 2_300_000), ("7k", 7000), ("1_000", 1000)])
def test_amounts_may_be_written_short(tmp_path, amount, n):
    assert arguments(tmp_path, pretraining_tokens=amount).pretraining_tokens == n


@pytest.mark.parametrize("amount", ["2X", "0.5", "0.0001k", "M"])
def test_amounts_that_are_no_whole_number_are_refused(tmp_path, amount):
    with pytest.raises(ValueError, match="pretraining_tokens"):
        arguments(tmp_path, pretraining_tokens=amount)
