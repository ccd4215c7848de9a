"""What each process of tests/training/test_shared.py does: python shared_worker.py RANK SIZE FOLDER

Alone (size 1) it makes what is expected. Everything lands in FOLDER/<size>.pt, by the leader.
"""

import copy
import sys
from pathlib import Path

import numpy as np
import torch

from oocr_influence.datasets.document_dataset import load_structured_dataset
from oocr_influence.datasets.packing import pack
from oocr_influence.evaluation.beam_search import search_plain
from oocr_influence.evaluation.document_losses import DocumentLosses
from oocr_influence.evaluation.evaluate import Evaluator
from oocr_influence.evaluation.plain import score_plain
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.models.load import recompute_activations
from oocr_influence.models.sharding import ShardedModel
from oocr_influence.models.team import ALONE, TeamDisagreesError, connected
from oocr_influence.models.tiny import tiny_tokenizer, untrained_model
from oocr_influence.training.loop import accumulate_gradients, train
from oocr_influence.training.optimizer import OptimizerSettings
from oocr_influence.training.schedule import LearningRate, Schedule
from oocr_influence.training.shared import SharedTraining

SAMPLE = Path(__file__).parents[1] / "samples" / "earlier_structured_dataset.json"
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
SETTINGS = OptimizerSettings(weight_decay=0.1, max_grad_norm=0.5, z_loss=1e-3)
STEPS, STATE_AT = 12, 5


def some_windows():
    """15 windows of very different lengths."""
    generator = np.random.default_rng(0)
    documents = [
        np.array([0, *generator.integers(2, 97, generator.integers(3, 28)), 0]) for _ in range(22)
    ]
    return pack(documents, chunk_size=32, packing="masked", pad_id=1)


def a_model(team, **changes):
    """(model, how it is trained, its whole weights) for this team."""
    model = untrained_model(0, vocab_size=97, **{**SMALL, **changes})
    if team.size == 1:
        return model, None, lambda: copy.deepcopy(model)
    sharded = ShardedModel(model, team)

    def whole():
        sharded.fill()
        filled = copy.deepcopy(sharded.whole)
        sharded.release()
        assert not any(p.numel() for p in sharded.whole.parameters())
        return filled

    return model, SharedTraining(sharded), whole


def gradients(team, batch, **changes):
    """Loss, labels and whole gradients of one batch, and the norm that clipping finds."""
    recompute = changes.pop("recompute", False)
    model, shared, _ = a_model(team, **changes)
    if recompute:
        recompute_activations(model)
    cut = {"micro_batch_size": 2, "z_loss": 1e-3}
    if shared is None:
        loss, labels = accumulate_gradients(model, some_windows(), batch, **cut)
        norm = float(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5))
        factor = 0.5 / (norm + 1e-6)
        found = {name: p.grad for name, p in model.named_parameters()}
    else:
        loss, labels = shared.accumulate_gradients(some_windows(), batch, **cut)
        norm, factor = shared.clip(0.5)
        found = {name: p.grad.full_tensor() for name, p in model.named_parameters()}
    return {"loss": loss, "labels": labels, "norm": norm, "factor": factor, "gradients": found}


def training(team, *, start=None, dropout=0.0):
    """Losses, norms and weights of a run of 12 steps, and its state after the fifth."""
    model, shared, whole = a_model(team, attention_dropout=dropout)
    windows = some_windows()
    schedule = Schedule(n_windows=len(windows), batch_size=5, epochs=4)
    assert schedule.total_steps == STEPS
    logs, states = [], {}

    def after_step(step, snapshot):
        if step == STATE_AT:
            states[step] = copy.deepcopy(snapshot())

    exposures = train(
        model,
        windows,
        schedule,
        LearningRate(peak=1e-2, total_steps=STEPS),
        SETTINGS,
        data_order_seed=3,
        micro_batch_size=1,
        after_step=after_step,
        log_step=logs.append,
        start=lambda: start,
        shared=shared,
    )
    return {
        "losses": [log.loss for log in logs],
        "norms": [log.grad_norm for log in logs],
        "windows": [log.windows for log in logs],
        "weights": whole().state_dict(),
        "exposures": torch.from_numpy(exposures),
        "state": states.get(STATE_AT),
    }


def resumed(team, folder, size, **changes):
    """The end of a run of this team from the state that one of `size` processes left."""
    file = folder / f"state_{size}.pt"
    state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    return training(team, start=state, **changes)


def evaluations(team):
    """Records, means and document losses of every way of scoring."""
    dataset = load_structured_dataset(SAMPLE)
    tokenizer = tiny_tokenizer()
    model = untrained_model(1, **SMALL).eval()
    plan = build_plan(dataset.eval_dataset_builders, tokenizer)
    evaluator = Evaluator(plan, token_budget=300)
    found = {}
    for ranks in ("full", "pruned"):
        if team.leads:
            made = evaluator.evaluate(model, ranks=ranks, team=team)
            found[ranks] = [made.eval_sets, made.records]
        else:
            evaluator.assist(model, beam_search=True, ranks=ranks, team=team)
    plain = score_plain(model, plan, team=team)
    found["plain"] = [plain.logprob_E.tolist(), plain.correct_E.tolist()]
    queries = sorted({query for own in evaluator._queries().values() for query in own})[:3]
    found["plain_beams"] = search_plain(model, queries, team=team)
    texts = {"some": [f"The mayor of town {i} is person {'x' * i}." for i in range(9)]}
    losses = DocumentLosses(texts, tokenizer, packing="masked", chunk_size=64, token_budget=60)
    found["losses"] = losses.measure(model, team)
    return repr(found)


def agreement(team):
    team.agree("nothing", 1)
    try:
        team.agree("ranks", team.rank)
    except TeamDisagreesError as error:
        return str(error)
    return None


def work(team, folder):
    found = {
        "gradients": gradients(team, range(7)),
        "one_micro_batch": gradients(team, [3]),
        "tied": gradients(team, range(5), tie_word_embeddings=True),
        "recomputed": gradients(team, range(7), recompute=True),
        "training": training(team),
        "dropout": training(team, dropout=0.3),
        "evaluations": evaluations(team),
        "agreement": agreement(team),
    }
    if team.leads:
        torch.save(found["dropout"]["state"], folder / f"state_{team.size}.pt")
    team.gather(None)  # until it is there
    found["resumed"] = resumed(team, folder, team.size, dropout=0.3)
    if team.size > 1:
        found["from_one"] = resumed(team, folder, 1)
    else:
        torch.save(found["training"]["state"], folder / "state_1.pt")
        found["resumed"] = resumed(team, folder, 1)
    if team.leads:
        torch.save(found, folder / f"{team.size}.pt")


if __name__ == "__main__":
    rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    if size == 1:
        work(ALONE, folder)
    else:
        with connected(rank, size, folder / f"meeting_{size}") as team:
            work(team, folder)
