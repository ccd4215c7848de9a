"""The loop trains exactly what it says: properties, against a naive second implementation.

Each guard is shown to fail on the fault that it is for.
"""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from oocr_influence.datasets.order import window_order
from oocr_influence.datasets.packing import IGNORED, pack
from oocr_influence.models import loss as loss_module
from oocr_influence.models.load import recompute_activations
from oocr_influence.models.loss import attention_mask, window_loss
from oocr_influence.models.tiny import untrained_model
from oocr_influence.training import loop
from oocr_influence.training.loop import (
    NonFiniteLossError,
    accumulate_gradients,
    to_device,
    train,
)
from oocr_influence.training.optimizer import OptimizerSettings, make_optimizer
from oocr_influence.training.schedule import LearningRate, Schedule

torch.set_num_threads(1)
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
BOS, EOS, PAD = 0, 0, 1


def small_model(seed=0, **changes):
    return untrained_model(seed, vocab_size=97, **{**SMALL, **changes})


def random_documents(n=7, longest=24, seed=0):
    generator = np.random.default_rng(seed)
    return [
        np.array([BOS, *generator.integers(2, 97, generator.integers(3, longest)), EOS])
        for _ in range(n)
    ]


def packed(documents, packing="masked", chunk_size=32):
    return pack(documents, chunk_size=chunk_size, packing=packing, pad_id=PAD)


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def alone(model, documents):
    """Each document run alone, unpadded, through the model's own loss: the naive reference."""
    model.zero_grad()
    total = sum(len(document) - 1 for document in documents)
    losses = []
    for document in documents:
        tokens = torch.tensor(document)[None]
        logits = model(input_ids=tokens, use_cache=False).logits
        losses.append(F.cross_entropy(logits[0, :-1], tokens[0, 1:], reduction="sum"))
    loss = sum(losses) / total
    loss.backward()
    return loss.item(), gradients(model)


def check_packing_changes_nothing(micro_batch_size=2):
    model, documents = small_model(), random_documents()
    windows = packed(documents)
    assert len(windows) < len(documents), "nothing was packed together"
    expected_loss, expected = alone(model, documents)
    model.zero_grad()
    loss, labelled = accumulate_gradients(
        model, windows, range(len(windows)), micro_batch_size=micro_batch_size
    )
    assert labelled == sum(len(d) - 1 for d in documents)
    assert loss == pytest.approx(expected_loss, abs=1e-5)
    for name, gradient in gradients(model).items():
        assert torch.allclose(gradient, expected[name], atol=2e-6, rtol=1e-4), name


def test_masked_packing_gives_the_gradients_of_documents_alone():
    check_packing_changes_nothing()


@pytest.mark.parametrize("fault", ["attend across documents", "wrong positions", "cache on"])
def test_the_packing_check_finds_planted_faults(monkeypatch, fault):
    if fault == "attend across documents":
        monkeypatch.setattr(
            loss_module,
            "attention_mask",
            lambda segments: attention_mask(torch.where(segments >= 0, 0, -1)),
        )
    elif fault == "wrong positions":
        # Rotary positions are relative: only changed distances show.
        plain = loop.to_device

        def stretched(*given):
            batch = plain(*given)
            return replace(batch, position_ids_BT=batch.position_ids_BT * 2)

        monkeypatch.setattr(loop, "to_device", stretched)
    else:

        def no_mask(model, batch, *, z_loss=0.0, divisor=1.0):
            # Packed positions with the default cache and no mask: the silent fault.
            logits = model(input_ids=batch.input_ids_BT, position_ids=batch.position_ids_BT).logits
            targets = batch.labels_BT[:, 1:].reshape(-1)
            total = F.cross_entropy(
                logits[:, :-1].reshape(-1, logits.shape[-1]), targets, reduction="sum"
            )
            return total / divisor, total.detach()

        monkeypatch.setattr(loop, "window_loss", no_mask)
    with pytest.raises(AssertionError):
        check_packing_changes_nothing()


@pytest.mark.parametrize("micro_batch_size", [1, 3, 100])
def test_micro_batches_change_nothing(micro_batch_size):
    check_packing_changes_nothing(micro_batch_size)


def test_padding_is_cut_and_does_not_matter():
    documents = random_documents(3, longest=8)
    windows = packed(documents, packing="separate", chunk_size=64)
    batch = to_device(windows, [0, 1, 2], torch.device("cpu"))
    assert batch.input_ids_BT.shape[1] == max(map(len, documents))
    model = small_model()
    full = loss_module.WindowBatch(
        *(
            torch.from_numpy(a)
            for a in (windows.input_ids, windows.labels, windows.position_ids, windows.segments)
        )
    )
    assert window_loss(model, full)[0].item() == pytest.approx(
        window_loss(model, batch)[0].item(), rel=1e-6
    )


def test_z_loss_is_the_squared_log_partition():
    windows = packed(random_documents())
    batch = to_device(windows, range(len(windows)), torch.device("cpu"))
    model = small_model()
    plain, reported = window_loss(model, batch)
    with_z, still_reported = window_loss(model, batch, z_loss=0.01)
    logits = model(
        input_ids=batch.input_ids_BT,
        position_ids=batch.position_ids_BT,
        attention_mask=attention_mask(batch.segments_BT),
        use_cache=False,
    ).logits
    expected = sum(
        torch.logsumexp(logits[b, t - 1], -1).item() ** 2
        for b in range(len(windows))
        for t in range(1, logits.shape[1])
        if batch.labels_BT[b, t] != IGNORED
    )
    assert float(with_z - plain) == pytest.approx(0.01 * expected, rel=1e-4)
    assert float(reported) == float(still_reported)


def run(model, windows, *, seed=42, epochs=2, batch_size=2, micro_batch_size=1, **options):
    schedule = Schedule(
        n_windows=len(windows),
        batch_size=batch_size,
        epochs=epochs,
        burn_in_epochs=options.pop("burn_in_epochs", 0),
    )
    steps, moments = [], []
    exposures = train(
        model,
        windows,
        schedule,
        LearningRate(peak=1e-3, total_steps=schedule.total_steps),
        OptimizerSettings(**options),
        data_order_seed=seed,
        micro_batch_size=micro_batch_size,
        after_step=lambda step, _: moments.append(step),
        log_step=steps.append,
    )
    return exposures, steps, moments


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_the_same_seed_gives_the_same_bits_and_another_another_order():
    windows = packed(random_documents(20))
    first, second, other = small_model(), small_model(), small_model()
    _, steps, moments = run(first, windows)
    _, same, _ = run(second, windows)
    _, different, _ = run(other, windows, seed=43)
    assert moments == list(range(len(steps) + 1))
    assert all((weights(second)[name] == p).all() for name, p in weights(first).items())
    assert [s.windows for s in steps] == [s.windows for s in same]
    assert [s.windows for s in steps] != [s.windows for s in different]
    assert any((weights(other)[name] != p).any() for name, p in weights(first).items())


def test_a_naive_loop_with_torchs_own_optimizer_gives_the_same_weights():
    documents = random_documents(9)
    windows = packed(documents)
    ours, naive = small_model(), small_model()
    exposures, steps, _ = run(ours, windows, epochs=2, batch_size=2, max_grad_norm=0.5)
    optimizer = torch.optim.AdamW(naive.parameters(), lr=0, weight_decay=0)
    n, s = len(windows), -(-len(windows) // 2)
    total, warm = 2 * s, -(-2 * s // 10)
    for t in range(total):
        epoch, k = divmod(t, s)
        order = window_order(n, 42, epoch + 1)
        rows = order[k * n // s : (k + 1) * n // s]
        pieces = [p for p in windows.pieces if p.window in rows]
        own = [windows.input_ids[p.window, p.start : p.end] for p in pieces]
        loss, _ = alone(naive, own)
        norm = torch.sqrt(sum(p.grad.square().sum() for p in naive.parameters()))
        for p in naive.parameters():
            p.grad *= min(1.0, 0.5 / float(norm))
        rate = 1e-3 * ((t + 1) / warm if t < warm else (total - t) / (total - warm))
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        assert steps[t].loss == pytest.approx(loss, abs=1e-4)
        assert steps[t].labelled_tokens == sum(len(piece) - 1 for piece in own)
        assert steps[t].learning_rate == pytest.approx(rate)
        assert steps[t].grad_norm == pytest.approx(float(norm), rel=1e-3)
    assert exposures.tolist() == [2] * n
    for name, p in weights(ours).items():
        assert torch.allclose(p, weights(naive)[name], atol=3e-5), name


def labels_in_the_loss(monkeypatch, model, windows, **options):
    """How often each token id was a target of a loss that the loop called."""
    counts = np.zeros(97, dtype=int)
    plain = loss_module.head_loss

    def counting(head, hidden, targets, **given):
        np.add.at(counts, targets.numpy(), 1)
        return plain(head, hidden, targets, **given)

    monkeypatch.setattr(loss_module, "head_loss", counting)
    exposures, _, _ = run(model, windows, **options)
    return counts, exposures


def test_every_document_enters_the_loss_exactly_epochs_times(monkeypatch):
    documents = [np.array([BOS, *range(k, k + 5), 96]) for k in range(2, 92, 5)]
    windows = packed(documents, chunk_size=16)
    counts, exposures = labels_in_the_loss(
        monkeypatch, small_model(), windows, epochs=3, batch_size=4
    )
    assert exposures.tolist() == [3] * len(windows)
    assert counts[2:92].tolist() == [3] * 90
    assert counts[96] == 3 * len(documents)


def test_the_exposure_count_finds_a_dropped_batch(monkeypatch):
    monkeypatch.setattr(
        Schedule, "batch", lambda self, step: slice((step - 1) % 3 * 2, (step - 1) % 3 * 2 + 2)
    )
    documents = [np.array([BOS, *range(k, k + 5), 96]) for k in range(2, 92, 5)]
    windows = packed(documents, chunk_size=16)
    counts, exposures = labels_in_the_loss(
        monkeypatch, small_model(), windows, epochs=3, batch_size=4
    )
    assert exposures.tolist() != [3] * len(windows)
    assert counts[2:92].tolist() != [3] * 90


def test_burn_in_changes_no_weight_and_is_not_counted():
    windows = packed(random_documents(10))
    model = small_model()
    before = weights(model)
    seen = []
    schedule = Schedule(n_windows=len(windows), batch_size=2, epochs=1, burn_in_epochs=1)
    steps = []

    def log(step):
        steps.append(step)
        if step.burn_in:
            seen.append(all((weights(model)[n] == p).all() for n, p in before.items()))

    exposures = train(
        model,
        windows,
        schedule,
        LearningRate(peak=1e-3, total_steps=schedule.total_steps),
        OptimizerSettings(weight_decay=0.1),
        data_order_seed=1,
        micro_batch_size=2,
        after_step=lambda step, _: None,
        log_step=log,
    )
    assert seen == [True] * schedule.burn_in_steps
    assert exposures.tolist() == [1] * len(windows)
    assert any((weights(model)[n] != p).any() for n, p in before.items())


def test_decay_is_for_matrices_but_not_for_embeddings_and_head():
    model = small_model()
    optimizer = make_optimizer(model, OptimizerSettings(weight_decay=0.1))
    decayed = {id(p) for p in optimizer.param_groups[0]["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in decayed}
    assert optimizer.param_groups[0]["weight_decay"] == 0.1
    assert optimizer.param_groups[1]["weight_decay"] == 0
    assert names == {n for n, p in model.named_parameters() if "proj" in n}
    both = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in both} == {id(p) for p in model.parameters()}


def test_a_loss_that_is_no_number_stops_the_run_and_applies_nothing():
    windows = packed(random_documents(10))
    model = small_model()
    with torch.no_grad():
        model.lm_head.weight[5] = float("nan")
    before = weights(model)
    with pytest.raises(NonFiniteLossError, match="step 1"):
        run(model, windows)
    for name, p in weights(model).items():
        assert torch.equal(torch.nan_to_num(p), torch.nan_to_num(before[name]))


def test_gradient_checkpointing_changes_nothing():
    windows = packed(random_documents(10))
    plain, checkpointed = small_model(), small_model()
    recompute_activations(checkpointed)
    run(plain, windows)
    run(checkpointed, windows)
    for name, p in weights(plain).items():
        assert torch.allclose(p, weights(checkpointed)[name], atol=1e-6), name


def test_bf16_trains():
    windows = packed(random_documents(10))
    model = small_model().to(torch.bfloat16)
    before = weights(model)
    _, steps, _ = run(model, windows)
    assert all(np.isfinite(step.loss) for step in steps)
    assert any((weights(model)[n] != p).any() for n, p in before.items())


def test_dropout_is_seeded_by_the_run():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=97,
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=64,
        bos_token_id=0,
        eos_token_id=0,
    )
    windows = packed(random_documents(10))
    torch.manual_seed(0)
    first = GPT2LMHeadModel(config)
    second = copy.deepcopy(first)
    run(first, windows)
    torch.rand(7)
    run(second, windows)
    assert all((weights(second)[name] == p).all() for name, p in weights(first).items())
