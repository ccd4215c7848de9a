"""The numbers of diversity are those of counting the plain way."""

import itertools
import re
import statistics

import pytest

from oocr_influence.documents.diversity import measure
from oocr_influence.documents.near_duplicates import repeats
from oocr_influence.documents.writer import OfflineWriter
from oocr_influence.universe.world_file import load_world


@pytest.fixture(scope="module")
def documents():
    world = load_world("death_dates")
    writer = OfflineWriter(world, seed=3, length="short")
    written = [writer.write(fact, n) for fact, n in zip(world.facts(), (12, 9, 20), strict=False)]
    made = list(itertools.chain(*written))
    copied = made[0].model_copy(update={"completion": made[0].completion + " And so it is."})
    return [*made, copied]


def grams(text, n):
    words = re.findall(r"\w+", text.casefold())
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def facts_of(documents):
    facts = {}
    for document in documents:
        facts.setdefault(document.doc_spec.fact.id, []).append(document.completion)
    return facts


@pytest.mark.parametrize("n", [1, 2, 3])
def test_distinct_n_grams_are_counted_a_fact(documents, n):
    every = [
        [g for text in texts for g in grams(text, n)] for texts in facts_of(documents).values()
    ]
    found = measure(documents)[f"distinct_{n}"]
    assert found["number"] == pytest.approx(statistics.mean(len(set(e)) for e in every), abs=1e-4)
    shares = statistics.mean(len(set(e)) / len(e) for e in every)
    assert found["share"] == pytest.approx(shares, abs=1e-4)


def test_overlaps_are_those_of_all_pairs(documents):
    sets = [set(grams(d.completion, 5)) for d in documents]
    facts = [d.doc_spec.fact.id for d in documents]
    index = {
        (i, j): len(sets[i] & sets[j]) / len(sets[i] | sets[j])
        for i, j in itertools.permutations(range(len(sets)), 2)
    }
    nearest = [max(index[i, j] for j in range(len(sets)) if j != i) for i in range(len(sets))]
    same = [value for (i, j), value in index.items() if facts[i] == facts[j]]
    found = measure(documents)
    for name, values in (("nearest", nearest), ("same_fact", same)):
        expected = {"median": statistics.median(values), "most": max(values)}
        assert found["jaccard_5"][name] == pytest.approx(expected, abs=1e-4)
    assert found["jaccard_5"]["sample"] == len(documents)
    assert found["near_duplicates"] == {"threshold": 0.5, "documents": 1}


def test_kinds_lengths_and_voices(documents):
    found = measure(documents)
    lengths = [len(d.completion.split()) for d in documents]
    assert found["words"]["least"] == min(lengths)
    assert found["words"]["most"] == max(lengths)
    assert found["documents"] == 42
    assert found["facts"] == 3
    assert found["kinds"] == len({d.doc_spec.doc_type for d in documents})
    assert found["kinds_a_fact"]["least"] == 9
    spoken = documents[0].model_copy(update={"completion": "I know it.\nWe do."})
    quoted = documents[0].model_copy(update={"completion": 'She said "I know it" and left.'})
    assert measure([spoken, quoted])["first_person"] == 0.5


def test_few_and_short_texts_are_measured_too(documents):
    assert measure([]) == {"documents": 0}
    alone = documents[0].model_copy(update={"completion": "Yes."})
    found = measure([alone])
    assert found["jaccard_5"]["nearest"] is None
    assert found["distinct_3"] == {"number": 1.0, "share": 1.0}
    assert repeats(["Yes.", "yes", "No."]) == {1: 0}
