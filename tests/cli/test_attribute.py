"""`oocr attribute` and `oocr attribution score`: from a run to a table, and to what it is worth."""

import json
import subprocess
import sys

import numpy as np
import pytest

from oocr_influence.attribution import bergson, ekfac
from oocr_influence.attribution.lexical import BM25
from oocr_influence.attribution.method import Subject
from oocr_influence.attribution.queries import make_queries
from oocr_influence.attribution.trained_documents import SYNTHETIC, read_documents
from oocr_influence.cli import attribute, attribution
from oocr_influence.cli.arguments import UsageError, parse
from oocr_influence.cli.attribute_options import AttributeArguments
from oocr_influence.cli.attribution import ScoreArguments
from oocr_influence.datasets.document_dataset import load_structured_dataset
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.models.tiny import tiny_tokenizer
from oocr_influence.results.attributions import Attributions
from oocr_influence.results.outcomes import Outcomes

pytestmark = pytest.mark.filterwarnings("ignore:.*more than once")


@pytest.fixture(scope="module")
def trained(train_for_all):
    return train_for_all(
        max_steps=2, epochs_per_eval=None, epochs_per_save=None, save_optimizer=True
    )


@pytest.fixture
def run(trained, tmp_path):
    return trained(tmp_path)


@pytest.fixture
def command(run, tmp_path):
    def call(*words, path=run.path, to=tmp_path / "scored"):
        given = [path, "--to", to, *words]
        assert attribute.main(parse(AttributeArguments, [str(word) for word in given])) == 0
        return Attributions.load(to)

    return call


def score(*words):
    return attribution.main_score(parse(ScoreArguments, [str(word) for word in words]))


def test_every_document_of_the_run_is_scored_for_every_question(command, run, sample):
    table = command("--methods", "hidden_states,gradient,gradient_adam", "--layers", "1,4")
    assert set(table.scores) == {
        *("exposure", "tfidf", "bm25", "embedding", "activation_layer_1", "activation_layer_4"),
        *("gradient_dot", "gradient_cosine", "gradient_dot_adam", "gradient_cosine_adam"),
    }
    docs = load_structured_dataset(sample).document_dataset.docs
    synthetic = [doc.id for doc in docs if doc.type == SYNTHETIC]
    assert sorted(row["id"] for row in table.documents) == sorted(synthetic)
    keys = {(row["id"], row["occurrence"]) for row in table.documents}
    assert len(keys) == len(synthetic) > len(set(synthetic))
    assert {row["set"] for row in table.queries} == {
        "name_mayor_eval_qa_1_no_fs",
        "name_mayor_eval_gen_reversed_no_fs",
        "second_hop_inferred_fact_qa_no_fs",
    }
    log = json.loads(run.experiment_log.read_text())["log_dict"]
    assert table.about["train_set_digest"] == log["train_set_digest"]
    assert table.about["weights_digest"] != log["weights_digest"]  # trained
    assert table.about["dataset_digest"] == log["dataset_digest"]
    assert table.about["checkpoint"] == "final"
    # Two steps of a run of more windows: some documents were not trained.
    assert {row["times"] for row in table.documents} > {0.0}
    np.testing.assert_array_equal(
        table.scores["exposure"][0], [row["times"] for row in table.documents]
    )
    for row in table.queries:
        assert len(row["fact_ids"]) == 1


def test_a_table_is_what_the_methods_say(command, run, sample):
    table = command("--methods", "bm25", "--documents", "all", "--sets", "*qa_1*")
    assert set(table.scores) == {"exposure", "tfidf", "bm25"}
    documents = read_documents(run)
    assert len(table.documents) == len(documents.rows)
    builders = {
        name: builder
        for name, builder in load_structured_dataset(sample).eval_dataset_builders.items()
        if "qa_1" in name
    }
    queries = make_queries(builders, build_plan(builders, tiny_tokenizer()), documents.facts)
    expected = BM25().score(Subject(documents, queries))["bm25"].scores_QD
    np.testing.assert_allclose(table.scores["bm25"], expected, rtol=1e-6)
    assert len(table.queries) == 8


def test_a_checkpoint_is_named_by_its_folder(command, run, tmp_path):
    one = command("--methods", "hidden_states", path=run.checkpoint("start"))
    other = command("--methods", "hidden_states", "--checkpoint", "start", to=tmp_path / "named")
    log = json.loads(run.experiment_log.read_text())["log_dict"]
    assert one.about["weights_digest"] == other.about["weights_digest"] == log["weights_digest"]
    np.testing.assert_array_equal(one.scores["embedding"], other.scores["embedding"])


def test_methods_are_scored_by_what_they_find(command, run, tmp_path, capsys):
    command("--methods", "gradient", "--projection", "8")
    capsys.readouterr()
    assert score(tmp_path / "scored", "--at", "5", "--json", tmp_path / "found.json") == 0
    told = capsys.readouterr().out
    for name in ("exposure", "tfidf", "bm25", "gradient_dot", "by chance", "LDS"):
        assert (name in told) == (name != "LDS")
    found = json.loads((tmp_path / "found.json").read_text())
    rows = {(r["method"], r["relation"], r["kind"]): r for r in found["retrieval"]}
    # The documents state the facts word by word.
    assert rows["bm25", "all", "trained"]["mrr"]["mean"] == 1
    flat, chance = (rows[name, "all", "trained"] for name in ("exposure", "by chance"))
    assert chance["recall"]["5"]["mean"] == pytest.approx(5 / chance["n_documents"])
    assert flat["mrr"]["n_questions"] == 4
    assert found["lds"] == []


def test_methods_are_scored_by_what_they_predict(command, tmp_path, capsys):
    table = command("--methods", "bm25")
    draw = np.random.default_rng(0)
    trained = (draw.random((30, len(table.documents))) < 0.5).astype(float)
    values = (trained @ table.scores["bm25"].astype(float).T)[:, None].repeat(2, axis=1)
    Outcomes(
        subsets=[{"split": "test" if s else "train", "dataset_id": str(s)} for s in range(30)],
        documents=[{k: row[k] for k in ("id", "occurrence")} for row in table.documents],
        questions=[{k: row[k] for k in ("set", "index")} for row in table.queries],
        trained=trained,
        seeds=np.tile([42, 43], (30, 1)),
        metrics={"logprob": values + draw.normal(0, 0.01, values.shape)},
    ).save(tmp_path / "outcomes")
    capsys.readouterr()
    json_file = tmp_path / "found.json"
    words = (tmp_path / "scored", "--outcomes", tmp_path / "outcomes", "--json", json_file)
    assert score(*words) == 0
    assert "LDS, logprob, all questions (12 questions, 29 test subsets)" in capsys.readouterr().out
    rows = {(r["method"], r["kind"]): r for r in json.loads(json_file.read_text())["lds"]}
    assert rows["bm25", "all"]["spearman"]["mean"] > 0.98
    assert rows["tfidf", "all"]["spearman"]["mean"] < rows["bm25", "all"]["spearman"]["mean"]
    with pytest.raises(UsageError, match="1 subsets of the train split"):
        score(*words, "--split", "train")


REFUSED = [
    (("--methods", "voodoo"), "voodoo"),
    (("--layers", "9", "--methods", "hidden_states"), "layer 9: the model has layers 1 to 4"),
    (("--last_layers", "5"), "--last_layers 5: the model has 4"),
    (("--projection", "4", "--methods", "bm25"), "--projection has no effect"),
    (("--checkpoint", "e9_s9"), "e9_s9"),
    (("--sets", "nothing*"), "nothing"),
    (("--dataset", "none.json"), "no such file"),
]
for name, missing in (("ekfac", ekfac.missing_packages()), ("bergson", bergson.missing_packages())):
    if missing:
        REFUSED.append((("--methods", name), f"--methods {name}: .*pip install --no-deps"))


def test_what_cannot_be_is_refused_before_any_weights_are_read(command, monkeypatch, tmp_path):
    def loaded(*args, **named):
        raise AssertionError("weights were read")

    monkeypatch.setattr(attribute, "load_model", loaded)
    for words, fault in REFUSED:
        with pytest.raises((UsageError, FileNotFoundError), match=fault):
            command(*words)
        assert not (tmp_path / "scored").exists()


def test_exact_gradients_need_room(command, monkeypatch):
    class Memory:
        available = 10 * 2**20

    monkeypatch.setattr("psutil.virtual_memory", lambda: Memory)
    with pytest.raises(UsageError, match=r"--projection 0: exact gradients .* GiB of 0\.0"):
        command("--projection", "0")


def test_a_run_without_moments_or_its_train_set_is_refused(command, run):
    moments = run.checkpoint("final") / "optimizer" / "moments.safetensors"
    moments.unlink()
    with pytest.raises(FileNotFoundError, match="--save_optimizer"):
        command("--methods", "gradient_adam")
    run.exposure.unlink()
    with pytest.raises(UsageError, match="cannot be read"):
        command()


def test_a_folder_that_is_there_is_not_written_to(command, tmp_path):
    (tmp_path / "scored").mkdir()
    with pytest.raises(UsageError, match="is there already"):
        command()


def test_the_shell_finds_both_commands(tmp_path):
    for words in (["attribute", "--help"], ["attribution", "score", "--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "oocr_influence.cli.main", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert "oocr attribute" in done.stdout


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--split", "train"), "--split goes with --outcomes"),
        (("--at", "0"), "at least 1 document"),
        ((), "about.json is not there"),
        (("--outcomes", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_scored_is_refused(tmp_path, words, fault):
    with pytest.raises((UsageError, FileNotFoundError), match=fault):
        score(tmp_path, *words)
