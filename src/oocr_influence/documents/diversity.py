"""How much a dataset's documents differ, in numbers that need no writer's tables.

    measure(documents)       # {"documents": 3000, "distinct_2": {...}, "jaccard_5": {...}, ...}

**Distinct n-grams** (Li et al., 2016, "A Diversity-Promoting Objective Function for Neural
Conversation Models"): the different n-grams of words in a fact's documents, and their share of all;
the mean over facts. The share falls with the length of the text: compare datasets of one size.
**Jaccard index** of the sets of 5-grams of two documents: for an evenly spread sample of documents,
with every other one. `nearest` is the index with the document that is most alike, of whatever fact;
`same_fact` is that with each other document of the same fact. **Near duplicates** are the documents
for which an earlier one has a Jaccard index of at least 0.5: all are compared, exactly, by the
writer while it writes or else here.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from oocr_influence.documents.document import SyntheticDocument
from oocr_influence.documents.grams import gram_digests, word_digests
from oocr_influence.documents.near_duplicates import THRESHOLD, N, repeats

SAMPLE = 500  # documents that are compared with all others
_QUOTED = re.compile(r'"[^"\n]*"')
_FIRST_PERSON = re.compile(r"\b(I|we|We|my|My|our|Our)\b")


def measure(documents: Sequence[SyntheticDocument], *, apart: float = 1.0) -> dict[str, Any]:
    """The numbers, as the metadata of a dataset keep them; lengths are in words.

    `apart`: a Jaccard index that no two are known to reach: they are not compared again.
    """
    if not documents:
        return {"documents": 0}
    texts = [document.completion for document in documents]
    words = [word_digests(text) for text in texts]
    by_fact: dict[str, list[int]] = defaultdict(list)
    for place, document in enumerate(documents):
        by_fact[document.doc_spec.fact.id].append(place)
    lengths = [len(text.split()) for text in texts]
    kinds = [{documents[p].doc_spec.doc_type for p in places} for places in by_fact.values()]
    own_voice = [bool(_FIRST_PERSON.search(_QUOTED.sub("", text))) for text in texts]
    return {
        "documents": len(documents),
        "facts": len(by_fact),
        "words": {"least": min(lengths), "mean": _mean(lengths), "most": max(lengths)},
        "kinds": len(set.union(*kinds)),
        "kinds_a_fact": {"least": min(map(len, kinds)), "mean": _mean([len(k) for k in kinds])},
        "first_person": _mean(own_voice),
        **{f"distinct_{n}": _distinct(words, by_fact.values(), n) for n in (1, 2, 3)},
        "jaccard_5": _overlaps(words, by_fact),
        "near_duplicates": {
            "threshold": THRESHOLD,
            "documents": 0 if apart <= THRESHOLD else len(repeats(texts)),
        },
    }


def _distinct(words: Sequence[np.ndarray], facts: Any, n: int) -> dict[str, float]:
    """Means over facts: how many n-grams differ, and their share of all."""
    numbers, shares = [], []
    for places in facts:
        grams = np.concatenate([gram_digests(words[place], n) for place in places])
        numbers.append(len(np.unique(grams)))
        shares.append(numbers[-1] / len(grams))
    return {"number": _mean(numbers), "share": _mean(shares)}


def _overlaps(words: Sequence[np.ndarray], by_fact: dict[str, list[int]]) -> dict[str, Any]:
    """Jaccard indices of a sample with all others, from an index of all 5-grams."""
    grams = [np.unique(gram_digests(w, N)) for w in words]
    sizes = np.array([len(g) for g in grams])
    every = np.concatenate(grams)
    order = np.argsort(every, kind="stable")
    sorted_grams = every[order]
    owners = np.repeat(np.arange(len(grams)), sizes)[order]
    fact_of = np.empty(len(grams), np.int64)
    for i, places in enumerate(by_fact.values()):
        fact_of[places] = i
    sample = np.unique(np.linspace(0, len(grams) - 1, min(SAMPLE, len(grams))).astype(int))
    nearest, same_fact = [], []
    for place in sample.tolist():
        first = np.searchsorted(sorted_grams, grams[place], side="left").tolist()
        last = np.searchsorted(sorted_grams, grams[place], side="right").tolist()
        sharing = np.concatenate([owners[a:b] for a, b in zip(first, last, strict=True)])
        shared = np.bincount(sharing, minlength=len(grams))
        index = shared / (sizes + sizes[place] - shared)
        others = np.arange(len(grams)) != place
        if others.any():
            nearest.append(float(index[others].max()))
        same_fact += index[others & (fact_of == fact_of[place])].tolist()
    return {
        "sample": len(sample),
        "nearest": _spread(nearest),
        "same_fact": _spread(same_fact),
    }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"median": round(float(np.median(values)), 4), "most": round(max(values), 4)}


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)
