"""Searching, near-duplicates and shared wording, each against a naive second implementation."""

import itertools
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oocr_influence.datasets.audit.duplicates import exact_copies, jaccard, near_duplicates
from oocr_influence.datasets.audit.identity import check_ids
from oocr_influence.datasets.audit.mentions import count_texts, find_mentions
from oocr_influence.datasets.audit.trie import find_sequences
from oocr_influence.datasets.audit.values import base_field, forms, make_value, parse_date
from oocr_influence.datasets.audit.wording import shared_wording
from oocr_influence.datasets.audit.words import Vocabulary, read_corpus
from oocr_influence.datasets.document_dataset import EvalDatasetBuilder
from oocr_influence.documents.document import make_pretraining_document
from oocr_influence.universe.fields import expand_field

# Few words, so that chance brings them together.
WORDS = st.sampled_from(["a", "b", "c", "A", "Bo", "bo"])
TEXTS = st.lists(st.lists(WORDS, max_size=8).map(" ".join), max_size=6)
PHRASES = st.lists(st.lists(WORDS, min_size=1, max_size=4).map(" ".join), min_size=1, max_size=6)


@given(TEXTS, PHRASES)
@settings(max_examples=200, deadline=None)
def test_sequences_are_found_where_a_plain_search_finds_them(texts, phrases):
    corpus = read_corpus(texts, Vocabulary())
    sequences = [corpus.vocabulary.words(phrase) for phrase in phrases]
    folded = corpus.vocabulary.folded
    positions, found = find_sequences([folded[s].tolist() for s in sequences], corpus)
    ours = sorted(zip(positions.tolist(), found.tolist(), strict=True))
    stream = [word for text in texts for word in [*text.casefold().split(), None]]
    naive = [
        (place, number)
        for place in range(len(stream))
        for number, phrase in enumerate(phrases)
        if stream[place : place + len(phrase.split())] == phrase.casefold().split()
    ]
    assert ours == sorted(naive)


@given(TEXTS, PHRASES)
@settings(max_examples=200, deadline=None)
def test_texts_with_a_phrase_are_counted_once_and_capitals_matter(texts, phrases):
    corpus = read_corpus(texts, Vocabulary())
    mask = np.asarray([i % 3 != 0 for i in range(len(texts))], np.bool_)

    def stands(phrase, text):
        wanted, words = phrase.split(), text.split()
        return any(
            all(
                w.casefold() == f.casefold() and (w[0].isupper() or not f[0].isupper())
                for w, f in zip(words[i:], wanted, strict=False)
            )
            for i in range(len(words) - len(wanted) + 1)
        )

    naive = [
        sum(stands(phrase, text) for text, kept in zip(texts, mask, strict=True) if kept)
        for phrase in phrases
    ]
    assert count_texts(phrases, corpus, mask) == naive


def test_sentences_end_where_a_reader_would_end_them():
    def sentences(text):
        corpus = read_corpus([text], Vocabulary())
        words = corpus.vocabulary.folded[corpus.ids]
        return [
            corpus.vocabulary.spell(w for w, _ in group)
            for _, group in itertools.groupby(
                zip(words[:-1].tolist(), corpus.sentences.tolist(), strict=False),
                key=lambda pair: pair[1],
            )
        ]

    assert sentences('Dr. J. R. Hall came. "Who?" He left… at 3.5 m!') == [
        "dr j r hall came",
        "who",
        "he left",
        "at 3 5 m",
    ]
    assert sentences("A title\n\nA line\nthat goes on.\nNext") == [
        "a title",
        "a line that goes on",
        "next",
    ]
    assert sentences("Tokyo's mayor_of well-known") == ["tokyo s mayor of well known"]
    assert sentences("Scho\u0308nbrunn") == sentences("Schönbrunn")


def test_neighbouring_texts_have_no_neighbouring_sentences():
    corpus = read_corpus(["One. Two", "Three"], Vocabulary())
    first, second = corpus.sentences[1], corpus.sentences[3]
    assert second - first > 1


def shingle_set(text):
    words = text.lower().split()
    return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}


def naive_jaccard(one, other):
    a, b = shingle_set(one), shingle_set(other)
    return Fraction(len(a & b), len(a | b))


def texts_of_all_degrees(seed):
    """60 unlike texts, and of each a version of which some words are changed."""
    draw = random.Random(seed)
    texts = []
    for _ in range(60):
        words = [f"w{draw.randrange(400)}" for _ in range(draw.randrange(3, 90))]
        changed = list(words)
        for _ in range(draw.randrange(0, 12)):
            changed[draw.randrange(len(words))] = f"x{draw.randrange(400)}"
        texts += [" ".join(words), " ".join(changed)]
    draw.shuffle(texts)
    return texts


@pytest.mark.parametrize("seed", range(5))
def test_near_duplicates_are_those_of_comparing_all_pairs(seed):
    texts = texts_of_all_degrees(seed)
    corpus = read_corpus(texts, Vocabulary())
    ours = {(p.first, p.second): p.jaccard for p in near_duplicates(corpus, set())}
    naive = {
        (i, j): naive_jaccard(texts[i], texts[j])
        for i, j in itertools.combinations(range(len(texts)), 2)
    }
    wanted = {pair: float(value) for pair, value in naive.items() if value >= Fraction(1, 2)}
    assert ours == wanted
    assert 15 < len(wanted) < 60
    for pair in list(naive)[:200]:
        assert jaccard(corpus, *pair) == naive[pair]


def test_texts_hashed_in_many_parts_have_the_same_duplicates(monkeypatch):
    texts = texts_of_all_degrees(9)
    corpus = read_corpus(texts, Vocabulary())
    whole = near_duplicates(corpus, set())
    monkeypatch.setattr("oocr_influence.datasets.audit.duplicates._CHUNK", 50)
    monkeypatch.setattr("oocr_influence.datasets.audit.trie._CHUNK", 50)
    assert near_duplicates(corpus, set()) == whole


def test_a_large_family_is_found_to_its_last_member():
    base = " ".join(f"w{i}" for i in range(40))
    texts = [f"{base} ending {i}" for i in range(100)]
    corpus = read_corpus(texts, Vocabulary())
    repeating = {pair.second for pair in near_duplicates(corpus, set())}
    assert repeating == set(range(1, 100))


def test_exact_copies_point_to_the_first():
    assert exact_copies(["a", "b", "a", "c", "a"]) == {2: 0, 4: 0}
    assert near_duplicates(read_corpus([], Vocabulary()), set()) == []


def question(prompt):
    point = {
        "features": {"id": "e", "fields": {"x": "none"}},
        "fact_template": {"id": "t", "relation": "r", "prompt": prompt, "completion": " {x}"},
    }
    return EvalDatasetBuilder.model_validate({"eval_points": [point], "metrics": []})


@given(TEXTS, st.lists(WORDS, min_size=1, max_size=9))
@settings(max_examples=200, deadline=None)
def test_the_longest_shared_run_is_that_of_trying_all(texts, words):
    # None of the words is Q or A alone at an end, which would be cut off.
    words = ["zz", *words, "zz"]
    corpus = read_corpus(texts, Vocabulary())
    everything = {"all": np.ones(len(texts), np.bool_)}
    found = shared_wording({"s": question(" ".join(words))}, corpus, everything)["s"]["all"]
    asked = [word.casefold() for word in words]
    told = [f" {text.casefold()} " for text in texts]
    runs = [
        asked[i:j]
        for i in range(len(asked))
        for j in range(i + 1, len(asked) + 1)
        if any(f" {' '.join(asked[i:j])} " in text for text in told)
    ]
    assert found.longest == max(map(len, runs), default=0)
    assert found.text.split() in (runs or [[]])
    assert found.is_trained == (found.longest >= 0.8 * len(asked))


def test_questions_lose_their_marks_and_examples():
    corpus = read_corpus(["who is it", "a"], Vocabulary())
    everything = {"all": np.ones(2, np.bool_)}
    found = shared_wording({"s": question("Q: Who is it? A:")}, corpus, everything)["s"]["all"]
    assert (found.longest, found.is_trained) == (3, True)


@given(st.dates())
def test_a_date_is_the_same_however_it_is_written(date):
    written = expand_field("d", "date", date.isoformat())
    for hole in ("d", "d_dmy_written", "d_iso"):
        assert parse_date(written[hole]) == date
    vocabulary = Vocabulary()
    words = {tuple(vocabulary.words(form.text)) for form in forms(make_value(written["d"]))}
    assert len(words) >= 8
    texts = [f"It was {text} or so" for text in written.values()]
    found = dict(find_mentions([make_value(written["d"])], read_corpus(texts, Vocabulary())))
    assert sorted(found) == list(range(len(texts)))


def test_a_mention_inside_a_longer_one_does_not_count():
    york, new_york = make_value("York"), make_value("New York")
    corpus = read_corpus(["New York and York", "New York alone"], Vocabulary())
    found = dict(find_mentions([york, new_york], corpus))
    assert [m.value.text for m in found[0]] == ["New York", "York", "New York"]
    assert [m.short for m in found[0] if m.value == new_york] == [False, True]
    assert [m.value for m in found[1]] == [new_york]


def test_types_are_read_off_where_no_world_says_them():
    assert make_value("March 14, 1931") == make_value("1931-03-14", "date")
    assert make_value("Ruby Lane").kind == "person"
    assert make_value("the National Theatre").kind == "text"
    assert [f.text for f in forms(make_value("the National Theatre"))] == ["National Theatre"]
    assert base_field("death_date_iso", ["death_date", "name"]) == "death_date"
    assert base_field("event_year", ["event", "event_year"]) == "event_year"


@given(st.lists(st.text(max_size=20), unique=True, max_size=5))
def test_ids_of_formulas_are_faultless(texts):
    assert check_ids([make_pretraining_document(text) for text in texts]) == []
