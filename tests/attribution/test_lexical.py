"""Lexical baselines against loops over words, and on documents where the truth is known."""

import math
import re
from collections import Counter

import numpy as np
import pytest

from oocr_influence.attribution.lexical import BM25, Exposure, TfIdf
from oocr_influence.attribution.method import Subject
from oocr_influence.attribution.queries import Queries
from oocr_influence.attribution.trained_documents import TrainedDocuments

DOCUMENTS = [
    "News: Ruby Lane is the mayor of Lagos. Ruby Lane smiles.",
    "The mayor of Lima is Ivo Sand, who likes trams and trams and trams.",
    "Trees lose their leaves in autumn, and the trains are late.",
    "Lagos is hot; the mayor of the town is away.",
    "É un café à Zürich: 12 tables, l'été.",
]
QUESTIONS = [
    "Who is the mayor of Lagos? Ruby Lane",
    "Who is the mayor of Lima? Ivo Sand",
    "The the café",
    "xylophone",
]


def subject(documents=DOCUMENTS, questions=QUESTIONS, times=None):
    rows = [{"times": t} for t in times or [1] * len(documents)]
    return Subject(
        TrainedDocuments(rows, documents, [], []), Queries([{}] * len(questions), questions, [])
    )


def words(text):
    return re.findall(r"\w+", text.lower())


def test_bm25_is_the_sum_over_words():
    found = BM25(k1=1.5, b=0.6).score(subject())["bm25"].scores_QD
    counts = [Counter(words(text)) for text in DOCUMENTS]
    average = sum(map(len, map(words, DOCUMENTS))) / len(DOCUMENTS)
    for q, question in enumerate(QUESTIONS):
        for d, text in enumerate(DOCUMENTS):
            total = 0.0
            for word in words(question):
                having = sum(word in other for other in counts)
                weight = math.log(1 + (len(DOCUMENTS) - having + 0.5) / (having + 0.5))
                n = counts[d][word]
                norm = 1.5 * (1 - 0.6 + 0.6 * len(words(text)) / average)
                total += weight * n * 2.5 / (n + norm)
            assert found[q, d] == pytest.approx(total), (q, d)


def test_tfidf_is_a_cosine_of_weighted_counts():
    found = TfIdf().score(subject())["tfidf"].scores_QD
    counts = [Counter(words(text)) for text in DOCUMENTS]
    weight = {
        word: math.log((1 + len(counts)) / (1 + sum(word in other for other in counts))) + 1
        for word in set().union(*counts)
    }

    def vector(text):
        return {w: n * weight[w] for w, n in Counter(words(text)).items() if w in weight}

    def cosine(one, other):
        lengths = [math.sqrt(sum(x * x for x in v.values())) for v in (one, other)]
        return sum(x * other.get(w, 0) for w, x in one.items()) / math.prod(lengths) if one else 0

    for q, question in enumerate(QUESTIONS):
        for d, text in enumerate(DOCUMENTS):
            assert found[q, d] == pytest.approx(cosine(vector(question), vector(text))), (q, d)


@pytest.mark.parametrize("method", [TfIdf(), BM25()])
def test_who_states_the_fact_comes_on_top_and_unknown_words_count_nothing(method):
    ((_, scored),) = method.score(subject()).items()
    assert scored.scores_QD[0].argmax() == 0
    assert scored.scores_QD[1].argmax() == 1
    assert (scored.scores_QD[3] == 0).all()
    assert (scored.scores_QD >= 0).all()


def test_exposure_is_how_often_each_was_trained():
    found = Exposure().score(subject(times=[1, 2, 0, 2.5, 3]))["exposure"].scores_QD
    np.testing.assert_array_equal(found, [[1, 2, 0, 2.5, 3]] * 4)
