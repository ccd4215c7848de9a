"""Pretrain `olmo2-tiny`, the built-in model, on invented worlds and a little English.

    python scripts/pretrain_tiny.py --work DIR --wordnet /usr/share/wordnet --threads 2 --compile

It goes on where it was stopped, with the same bits as if it had not been, and writes at the end the
weights (16 bits), their config and the card to `models/olmo2_tiny/`. No entity and no wording of a
question of the built-in worlds is in the text (tests/models/test_tiny_corpus.py).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent / "tiny_corpus"))
from corpus import QUESTIONS, WORLDS, Block, Corpus, read_english

from oocr_influence.datasets.packing import pack, tokenize_documents
from oocr_influence.evaluation.evaluate import Evaluator
from oocr_influence.evaluation.plan import build_plan
from oocr_influence.models.load import weights_digest
from oocr_influence.models.tiny import FOLDER, tiny_tokenizer, untrained_model
from oocr_influence.results.digests import file_digest, text_digest
from oocr_influence.training.loop import accumulate_gradients

SEED = 0
WINDOW, BATCH, MICRO_BATCH = 256, 8, 8
PEAK_RATE, LAST_RATE = 2e-3, 6e-4
WARMUP_STEPS = 200
COOL_DOWN = 0.2  # the last share of the blocks, in which the rate falls
# Behind a norm a large weight turns slowly: without decay, a model pretrained for longer is better
# at text and slower at learning facts.
MATRIX_DECAY, EMBEDDING_DECAY = 0.3, 0.01
BETAS = (0.9, 0.98)
MAX_GRAD_NORM = 1.0
ENGLISH_DOCUMENTS = 8000
SAVE_EVERY = 5  # blocks


def main() -> None:
    """Pretrain for the stated number of blocks, then export."""
    args = _arguments()
    torch.set_num_threads(args.threads)
    sources = ["stdlib", "package:numpy"]
    sources += [f"wordnet:{args.wordnet}"] if args.wordnet else []
    english, described = read_english(sources, ENGLISH_DOCUMENTS)
    corpus = Corpus(SEED, english)
    print(f"{len(english)} English passages, {len(corpus.english)} name no built-in entity")
    run = Pretraining(args.work, corpus, blocks=args.blocks, compiled=args.compile)
    run.go_on()
    if args.export:
        export(run, described, args.export)


class Pretraining:
    """Model, optimizer and place in the corpus; the whole state is one file."""

    def __init__(self, work: Path, corpus: Corpus, *, blocks: int, compiled: bool = False) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.work, self.corpus, self.blocks, self.compiled = work, corpus, blocks, compiled
        self.tokenizer = tiny_tokenizer()
        self.model = untrained_model(SEED)
        if compiled:
            for layer in self.model.model.layers:
                layer.compile(dynamic=True)
        self.optimizer = _optimizer(self.model)
        self.block, self.step, self.tokens, self.seconds = 0, 0, 0, 0.0
        self.state_file = work / "state.pt"
        if self.state_file.exists():
            self._restore()

    def go_on(self) -> None:
        """Train the blocks that are left."""
        while self.block < self.blocks:
            started = time.perf_counter()
            block = self.corpus.block(self.block)
            loss = self._train(block)
            self.block += 1
            self.seconds += time.perf_counter() - started
            self._log(loss, block)
            if self.block % SAVE_EVERY == 0 or self.block == self.blocks:
                self._save()

    def _train(self, block: Block) -> float:
        tokens = tokenize_documents(block.texts, self.tokenizer, "masked")
        windows = pack(
            tokens, chunk_size=WINDOW, packing="masked", pad_id=self.tokenizer.pad_token_id
        )
        losses = []
        self.model.train()
        for first in range(0, len(windows), BATCH):
            batch = list(range(first, min(first + BATCH, len(windows))))
            done = (self.block + first / len(windows)) / self.blocks
            for group in self.optimizer.param_groups:
                group["lr"] = self._rate(done)
            # Weights, moments and the loss are float32; products between are of bf16 numbers.
            with torch.autocast("cpu", torch.bfloat16):
                loss, _ = accumulate_gradients(
                    self.model, windows, batch, micro_batch_size=MICRO_BATCH
                )
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRAD_NORM)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            losses.append(loss)
            self.step += 1
        self.tokens += windows.n_tokens
        return statistics.fmean(losses)

    def _rate(self, done: float) -> float:
        """Warm-up, the peak, then a line down to the last rate."""
        fall = max(0.0, (done - (1 - COOL_DOWN)) / COOL_DOWN)
        return (PEAK_RATE + (LAST_RATE - PEAK_RATE) * fall) * min(
            1.0, (self.step + 1) / WARMUP_STEPS
        )

    def _log(self, loss: float, block: Block) -> None:
        evaluator = Evaluator(build_plan(block.probe, self.tokenizer))
        with torch.compiler.set_stance("force_eager"):
            found = evaluator.evaluate(self.model, beam_search=False).records
        ranks: dict[str, list[float]] = {}
        for record in found:
            chance = (record["n_candidates"] + 1) / 2
            relative = (record["rank_tie_averaged"] - 1) / (chance - 1)
            for group in ("all", record["set"].partition("_eval_")[2].removesuffix("_1_no_fs")):
                ranks.setdefault(group, []).append(relative)
        entry = {
            "block": self.block,
            "step": self.step,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 1),
            "loss": round(loss, 4),
            # 0: every question of the world that was told and not asked is right; 1: chance.
            "unasked": {group: round(statistics.fmean(r), 3) for group, r in ranks.items()},
        }
        with (self.work / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
        print(json.dumps(entry), flush=True)

    def _save(self) -> None:
        beside = self.state_file.with_suffix(".tmp")
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "place": (self.block, self.step, self.tokens, self.seconds),
                "recipe": self.recipe,
            },
            beside,
        )
        beside.replace(self.state_file)

    def _restore(self) -> None:
        state = torch.load(self.state_file, weights_only=True)
        if not self._goes_on_from(state["recipe"], state["place"][0]):
            sys.exit(
                f"error: {self.state_file} was begun with another recipe: {state['recipe']}; "
                "name another --work folder, or delete it"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.block, self.step, self.tokens, self.seconds = state["place"]
        print(f"going on after block {self.block}")

    def _goes_on_from(self, before: dict[str, Any], block: int) -> bool:
        """Whether the recipe is the same; its length may change until the rate falls."""
        alike = {**before, "blocks": self.blocks} == self.recipe
        constant = (1 - COOL_DOWN) * min(before["blocks"], self.blocks)
        return alike and (before["blocks"] == self.blocks or block <= constant)

    @property
    def recipe(self) -> dict[str, Any]:
        """What the bits depend on, apart from versions; the first block stands for all."""
        return {
            "seed": SEED,
            "blocks": self.blocks,
            "window": WINDOW,
            "batch_size": BATCH,
            "micro_batch_size": MICRO_BATCH,
            "products": "bfloat16",
            "compiled": self.compiled,
            "peak_rate": PEAK_RATE,
            "last_rate": LAST_RATE,
            "warmup_steps": WARMUP_STEPS,
            "cool_down": COOL_DOWN,
            "weight_decay": [MATRIX_DECAY, EMBEDDING_DECAY],
            "betas": list(BETAS),
            "max_grad_norm": MAX_GRAD_NORM,
            "questions": [list(stage) for stage in QUESTIONS],
            "english_digest": text_digest("\0".join(self.corpus.english)),
            "first_block_digest": text_digest("\0".join(self.corpus.block(0).texts)),
        }


def _optimizer(model: torch.nn.Module) -> torch.optim.AdamW:
    """AdamW that decays matrices most, embeddings and head a little, norms not at all."""
    groups: dict[float, list[torch.nn.Parameter]] = {MATRIX_DECAY: [], EMBEDDING_DECAY: [], 0.0: []}
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            groups[0.0].append(parameter)
        else:
            outer = "embed_tokens" in name or "lm_head" in name
            groups[EMBEDDING_DECAY if outer else MATRIX_DECAY].append(parameter)
    return torch.optim.AdamW(
        [{"params": params, "weight_decay": decay} for decay, params in groups.items()],
        lr=0.0,
        betas=BETAS,
        fused=True,
    )


def export(run: Pretraining, english: list[dict[str, str]], folder: Path) -> None:
    """Weights in float16, config and card; the tokenizer lies there already."""
    run.model.half().save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    log = [json.loads(line) for line in (run.work / "log.jsonl").read_text().splitlines()]
    card = {
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        # As runs record it: of the float16 weights, loaded in float32.
        "weights_digest": weights_digest(run.model.float()),
        "weights_file_sha256": file_digest(folder / "model.safetensors"),
        "recipe": run.recipe,
        "worlds": WORLDS * run.blocks,
        "steps": run.step,
        "tokens": run.tokens,
        "hours": round(run.seconds / 3600, 2),
        "last_losses": [entry["loss"] for entry in log[-5:]],
        "english": english,
        "torch": torch.__version__,
    }
    text = json.dumps(card, indent=1)
    (folder / "pretraining.json").write_text(text + "\n", encoding="utf-8")
    print(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="where state and log are kept")
    parser.add_argument("--wordnet", type=Path, help="folder with WordNet's data.noun, data.verb …")
    parser.add_argument("--blocks", type=int, default=104, help="length of the pretraining")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="the layers, with torch.compile (needs a C++ compiler)",
    )
    parser.add_argument(
        "--export", type=Path, default=FOLDER, help="where weights and card are written"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
