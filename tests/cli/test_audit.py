"""`oocr audit` and `oocr dataset …` by their commands: files, exit status, messages."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from oocr_influence.cli import dataset as dataset_commands
from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.cli.audit import AuditArguments, main
from oocr_influence.cli.generate import main as generate
from oocr_influence.cli.generate_options import GenerateArguments
from oocr_influence.cli.world import WorldArguments
from oocr_influence.cli.world import main as show
from oocr_influence.datasets.document_dataset import document_keys, load_structured_dataset
from oocr_influence.universe import world_file

pytestmark = pytest.mark.filterwarnings("ignore:.*more than once")


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    path = tmp_path_factory.mktemp("datasets") / "mayors.json"
    words = "--docs_per_fact 2 --pretraining_docs 20 --length short --held_out_docs 4 --output"
    assert generate(parse(GenerateArguments, [*words.split(), str(path)])) == 0
    return path


def audit(*words):
    return main(parse(AuditArguments, [str(word) for word in words]))


def test_a_generated_dataset_is_clean_and_its_world_is_found(generated, tmp_path, capsys):
    page, data = tmp_path / "audit.html", tmp_path / "audit.json"
    assert audit(generated, "--html", page, "--json", data) == 0
    text = capsys.readouterr().out
    assert text.startswith("Audit of mayors.json: within every limit")
    assert "Facts come from world 'mayors'." in text
    report = json.loads(data.read_text(encoding="utf-8"))
    assert report["statements"]["documents"] == 60 + 15 + 4
    assert all(check["ok"] for check in report["checks"])
    assert len(report["wording"]) == 250
    html = page.read_text(encoding="utf-8")
    assert "light-dark(" in html
    assert "<script" not in html
    assert "http" not in html
    assert html.count("<tr>") > 250
    assert '<th class="number">found</th>' in html
    assert '<td class="number">≥ 99.00 %</td><td class="flag">--min_stated</td>' in html


@pytest.mark.parametrize("own_file", [False, True])
def test_invented_entities_are_looked_for_as_the_file_has_them(
    tmp_path, monkeypatch, capsys, own_file
):
    monkeypatch.chdir(tmp_path)
    world = "companies"
    if own_file:
        world = "firms.yaml"
        assert show(parse(WorldArguments, "new firms --like companies --keep".split())) == 0
    words = f"--world {world} --entities 12 --entity_seed 3 --docs_per_fact 1 --length short"
    words += " --pretraining_docs 0 --output made.json"
    assert generate(parse(GenerateArguments, words.split())) == 0
    asked = ("--world", world) if own_file else ()
    raw = json.loads((tmp_path / "made.json").read_text(encoding="utf-8"))
    entities = {}
    for document in raw["document_dataset"]["docs"]:
        if document["type"] == "synthetic_document":
            features = document["doc_spec"]["fact"]["feature_set"]
            entities.setdefault(features["id"], []).append((document, features["fields"]))
    document, fields = list(entities.values())[11][0]
    assert document["doc_spec"]["fact"]["template"]["relation"] == "founder"
    assert audit("made.json", *asked) == 0
    assert "world '" in capsys.readouterr().out
    document["completion"] += f" It was registered on {fields['headquarters']} Street."
    (tmp_path / "made.json").write_text(json.dumps(raw), encoding="utf-8")
    assert audit("made.json", *asked, "--no-matrix") == 1
    assert "BROKEN  documents that reveal what their relation withholds" in capsys.readouterr().out


def test_a_world_that_has_changed_since_is_said_to_have(generated, tmp_path):
    built_in = Path(world_file.__file__).parent / "worlds" / "mayors.yaml"
    changed = tmp_path / "mayors.yaml"
    changed.write_text(
        built_in.read_text(encoding="utf-8").replace("Edwin Tarrant", "Edwin Barrant"), "utf-8"
    )
    with pytest.warns(UserWarning, match="is not what the file was written from"):
        audit(generated, "--world", changed, "--no-matrix")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert audit(generated, "--world", built_in, "--no-matrix") == 0


def test_the_matrix_lies_beside_the_dataset_by_the_documents_keys(generated):
    assert audit(generated) == 0
    table = pq.read_table(generated.with_name("mayors.facts.parquet"))
    rows = table.to_pylist()
    dataset = load_structured_dataset(generated)
    keys = document_keys(dataset.document_dataset.docs)
    synthetic = [
        key
        for key, d in zip(keys, dataset.document_dataset.docs, strict=True)
        if d.type == "synthetic_document"
    ]
    own = [row for row in rows if row["own"] and row["group"] == "synthetic"]
    assert [(row["id"], row["occurrence"]) for row in own] == synthetic
    assert {row["how"] for row in own} <= {"one sentence", "two sentences"}
    assert all(row["states"] is True for row in own)


def test_the_same_dataset_gives_the_same_report(generated, tmp_path):
    for name in ("one", "two"):
        assert audit(generated, "--json", tmp_path / name, "--no-matrix") == 0
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_broken_limit_is_exit_status_1_and_limits_are_flags(generated, tmp_path, capsys):
    raw = json.loads(generated.read_text(encoding="utf-8"))
    raw["document_dataset"]["docs"][-1]["completion"] = "Nothing of the matter."
    path = tmp_path / "planted.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    assert audit(path, "--no-matrix") == 1
    assert "BROKEN  share of documents that state their fact" in capsys.readouterr().out
    assert audit(path, "--no-matrix", "--min_stated", "0.9") == 0
    assert audit(path, "--no-matrix", "--min_stated", "None") == 0
    assert not path.with_name("planted.facts.parquet").exists()


def test_a_file_of_the_earlier_system_is_audited_by_its_own_facts(sample, capsys):
    assert audit(sample, "--no-matrix") == 1
    text = capsys.readouterr().out
    assert "Facts come from the file's own facts." in text
    assert "33 of 33 do" in text
    assert "1 ids are faulty (1 repeated)" in text
    words = "--no-matrix --max_exact_duplicates 1 --max_id_faults 1"
    assert audit(sample, *words.split()) == 0


def test_tokens_are_counted_by_a_models_tokenizer(sample, tmp_path):
    from oocr_influence.models.tiny import tiny_tokenizer

    out = tmp_path / "audit.json"
    audit(sample, "--no-matrix", "--tokenizer", "olmo2-tiny", "--json", out)
    balance = json.loads(out.read_text(encoding="utf-8"))["balance"]
    dataset, tokenizer = load_structured_dataset(sample), tiny_tokenizer()
    counts: dict[str, int] = {}
    for document in dataset.synthetic_documents:
        fact = document.doc_spec.fact.id
        tokens = tokenizer(document.completion, add_special_tokens=False)["input_ids"]
        counts[fact] = counts.get(fact, 0) + len(tokens)
    (row,) = balance["relations"].values()
    assert balance["unit"] == "tokens"
    spread = row["tokens_a_fact"]
    assert (spread["least"], spread["most"]) == (min(counts.values()), max(counts.values()))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.json", "b.json"], "DATASET is one file; 2 are given"),
        (["SAMPLE", "--world", "moon"], "no world 'moon'"),
        (["SAMPLE", "--tokenizer", "./none"], "--tokenizer './none': no such folder"),
        (["none.json"], "no structured dataset at 'none.json'"),
        (["SAMPLE", "--min_stated", "2"], "--min_stated '2'"),
    ],
)
def test_what_cannot_be_audited_is_said_at_once(sample, words, message):
    with pytest.raises((UsageError, FileNotFoundError), match=message):
        audit(*(sample if word == "SAMPLE" else word for word in words))


def oocr(*words):
    return subprocess.run(
        [sys.executable, "-m", "oocr_influence.cli.main", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_commands_of_two_words(generated, tmp_path):
    exported, back, other = tmp_path / "hf", tmp_path / "back.json", tmp_path / "other.json"
    done = oocr("dataset", "export", generated, "--format", "hf", "--output", exported)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in exported.iterdir()) == [
        "README.md",
        "documents.parquet",
        "eval_sets.parquet",
        "questions.parquet",
        "rest.json",
    ]
    assert oocr("dataset", "import", exported, "--output", back).returncode == 0
    assert back.read_bytes() == generated.read_bytes()
    done = oocr("dataset", "diff", generated, back)
    assert (done.returncode, done.stdout) == (0, "the same documents, eval sets and metadata\n")
    dropped = load_structured_dataset(generated).document_dataset.docs[3].id
    (tmp_path / "ids.txt").write_text(f"{dropped}\n\n", encoding="utf-8")
    ids = ("--drop_ids", tmp_path / "ids.txt", "--output", other)
    assert oocr("dataset", "filter", generated, *ids).returncode == 0
    done = oocr("dataset", "diff", generated, other, "--json", tmp_path / "diff.json")
    assert done.returncode == 1
    assert f"1 removed\n  removed {dropped}" in done.stdout
    difference = json.loads((tmp_path / "diff.json").read_text(encoding="utf-8"))
    assert difference["documents"]["removed"] == [dropped]
    assert oocr("dataset", "filter", generated, *ids).returncode == 2  # is there already
    done = oocr("dataset", "throw", generated)
    assert done.returncode == 2
    assert "no command 'dataset'" in done.stderr
    assert "dataset export" in oocr("--help").stdout


def test_what_cannot_be_exported_or_filtered_is_said(sample, tmp_path):
    def call(name, arguments, *words):
        return getattr(dataset_commands, name)(parse(arguments, [str(word) for word in words]))

    with pytest.raises(UsageError, match="exists; name a new folder"):
        call("main_export", dataset_commands.ExportDatasetArguments, sample, "--output", tmp_path)
    arguments = dataset_commands.FilterDatasetArguments
    out = ("--output", tmp_path / "out.json")
    with pytest.raises(UsageError, match="nothing to leave out"):
        call("main_filter", arguments, sample, *out)
    with pytest.raises(UsageError, match="no such file"):
        call("main_filter", arguments, sample, "--drop_ids", tmp_path / "none", *out)
    with pytest.raises(UsageError, match="no fact's id is or begins with 'abc'"):
        call("main_filter", arguments, sample, "--keep_facts", "abc", *out)
    with pytest.raises(UsageError, match="2 paths wanted, 1 given"):
        call("main_diff", dataset_commands.DiffDatasetsArguments, sample)
    with pytest.raises(FileNotFoundError, match="is no exported dataset"):
        call("main_import", dataset_commands.ImportDatasetArguments, tmp_path, *out)
    assert not (tmp_path / "out.json").exists()


def test_auditing_loads_no_torch(generated):
    code = (
        "import sys\n"
        "from oocr_influence.cli.audit import AuditArguments, main\n"
        f"main(AuditArguments(dataset=[{str(generated)!r}], matrix=False))\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
