"""The text of the tiny model's pretraining: blocks of invented worlds, asked about, and English.

A block is a handful of worlds. Their facts are told by the project's own writer, and most facts are
asked in zero- and few-shot questions a while after their first documents, each text a document of
its own: the answer has to be known, it stands nowhere near. The first world of a block is told
and never asked; how well its questions are answered at the end of the block is the progress that
counts. Block `n` of a seed depends on (seed, n) and the English alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from invention import invent_world, names_held_out

from oocr_influence.datasets.document_dataset import EvalDatasetBuilder
from oocr_influence.datasets.eval_sets import NO_FEW_SHOT, build_eval_sets
from oocr_influence.documents.draw import Draw
from oocr_influence.documents.pretraining import read_pretraining
from oocr_influence.documents.writer import OfflineWriter
from oocr_influence.universe.world import World

WORLDS = 20  # of a block, the probe included
DOCUMENTS = (2, 4)  # of a fact
ASKED = 0.8  # the share of facts that are asked
# Questions of a fact that is asked, without and with three examples, from which block on: examples
# before a question are learned late, and longest.
QUESTIONS = ((0, 5, 3), (52, 4, 6))
FIRST_QUESTION = 0.25  # of a block's text has gone by before the first question
REVERSED_SHARES = (0.0, 0.3, 0.3, 0.5, 1.0)
ENGLISH_SHARE = 0.06  # of a block's documents
ENGLISH_CHARS = 700


@dataclass(frozen=True)
class Block:
    """Texts in the order in which they are read, and the world that is told but not asked."""

    texts: list[str]
    probe: dict[str, EvalDatasetBuilder]


class Corpus:
    """Blocks by number; `english` is drawn from without regard to blocks before."""

    def __init__(self, seed: int, english: list[str]) -> None:
        self.seed = seed
        self.english = [text for text in english if not names_held_out(text)]

    def block(self, n: int) -> Block:
        """Block `n`, from 0."""
        worlds = [invent_world(self.seed, n * WORLDS + i) for i in range(WORLDS)]
        placed: list[tuple[float, str]] = []
        for i, world in enumerate(worlds):
            draw = Draw("block", self.seed, n, i)
            placed += self._documents(world, draw)
            placed += self._questions(world, draw, *_counts(n)) if i > 0 else []
        draw = Draw("english", self.seed, n)
        for _ in range(int(len(placed) * ENGLISH_SHARE)) if self.english else ():
            placed.append((draw.below(10**9) / 10**9, draw.choice(self.english)))
        texts = [text for _, text in sorted(placed, key=lambda entry: entry[0])]
        return Block(texts, _probe_sets(worlds[0]))

    def _documents(self, world: World, draw: Draw) -> list[tuple[float, str]]:
        """Every fact in a few documents, each with its place in the block, evenly spread."""
        share = draw.choice(REVERSED_SHARES)
        writer = OfflineWriter(world, seed=self.seed, length="short", reversed_share=share)
        count = draw.between(*DOCUMENTS)
        return [
            ((i + draw.below(1000) / 1000) / count, document.completion)
            for fact in world.facts()
            for i, document in enumerate(writer.write(fact, count))
        ]

    def _questions(
        self, world: World, draw: Draw, n_zero: int, n_few: int
    ) -> list[tuple[float, str]]:
        """Questions about most facts, each with its answer and its place in the block."""
        sets = build_eval_sets(world, seed=self.seed)
        placed = []
        for relation in world.relations:
            own = {name: b for name, b in sets.items() if name.startswith(f"{relation}_eval")}
            zero = [b for name, b in own.items() if name.endswith(NO_FEW_SHOT)]
            few = [b for name, b in own.items() if not name.endswith(NO_FEW_SHOT)]
            for entity in range(len(world.entities)):
                if not draw.chance(ASKED):
                    continue
                chosen = [*draw.shuffled(zero)[:n_zero], *draw.shuffled(few)[:n_few]]
                for builder in chosen:
                    point = builder.eval_points[entity]
                    place = FIRST_QUESTION + (1 - FIRST_QUESTION) * draw.below(1000) / 1000
                    placed.append((place, point.prompt + point.completion))
        return placed


def _counts(n: int) -> tuple[int, int]:
    """Questions of a fact in block `n`."""
    _, zero, few = max(stage for stage in QUESTIONS if stage[0] <= n)
    return zero, few


def _probe_sets(world: World) -> dict[str, EvalDatasetBuilder]:
    """The first wording of every block of questions, without examples."""
    sets = build_eval_sets(world, seed=0)
    return {name: builder for name, builder in sets.items() if name.endswith(f"_1{NO_FEW_SHOT}")}


def read_english(sources: list[str], count: int) -> tuple[list[str], list[dict[str, str]]]:
    """English passages of `sources` and what provenance says of them.

    A source is one of `read_pretraining`'s, or `wordnet:FOLDER` with WordNet's data files.
    """
    texts: list[str] = []
    described: list[dict[str, str]] = []
    plain = [source for source in sources if not source.startswith("wordnet:")]
    if plain:
        read = read_pretraining(plain, count, seed=0, max_chars=ENGLISH_CHARS)
        texts += [document.completion for document in read.documents]
        described += [
            {"source": entry["source"], "licence": entry["licence"]}
            for entry in read.provenance["sources"]
        ]
    for source in sources:
        if source.startswith("wordnet:"):
            texts += _wordnet(Path(source.removeprefix("wordnet:")))
            described.append({"source": "glosses of WordNet 3.0", "licence": "WordNet-3.0"})
    return texts, described


def _wordnet(folder: Path) -> list[str]:
    """Five glosses a passage, `word: what it means`, in the order of the files."""
    glosses = []
    for name in ("data.noun", "data.verb", "data.adj", "data.adv"):
        for line in (folder / name).read_text(encoding="utf-8").splitlines():
            entry, bar, gloss = line.partition(" | ")
            if bar:
                word = entry.split()[4].partition("(")[0].replace("_", " ")
                glosses.append(f"{word}: {gloss.strip()}")
    return ["\n".join(glosses[i : i + 5]) for i in range(0, len(glosses), 5)]
