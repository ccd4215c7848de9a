"""Baselines that read no model: how often a document was trained, and which words it shares.

A method that attributes influence must beat these before it says anything about a model. Where
documents repeat a question's words, they are hard to beat.

Words are runs of letters, digits and underscores, in lower case. A query's text is its own question
and right answer, without the examples shown before it. The scored documents are the collection.

Letters: Q queries, D documents, W words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from oocr_influence.attribution.method import Scored, Subject
from oocr_influence.attribution.statistics import needed

WORD = r"(?u)\w+"


@dataclass(frozen=True)
class Exposure:
    """How often the run trained the document: the same for every query."""

    reads_model: ClassVar[bool] = False

    def score(self, subject: Subject) -> dict[str, Scored]:
        times_D = np.array([row["times"] for row in subject.documents.rows], np.float32)
        scores_QD = np.broadcast_to(times_D, subject.shape)
        return {"exposure": Scored(scores_QD.copy(), "times that the document was trained")}


@dataclass(frozen=True)
class TfIdf:
    """Cosine of vectors of word counts times ln((1 + D) / (1 + documents with the word)) + 1.

    scikit-learn's own weights (Pedregosa et al. 2011, JMLR 12).
    """

    reads_model: ClassVar[bool] = False

    def score(self, subject: Subject) -> dict[str, Scored]:
        text = needed("sklearn.feature_extraction.text")
        vectoriser = text.TfidfVectorizer(token_pattern=WORD)
        documents_DW = vectoriser.fit_transform(subject.documents.texts)
        queries_QW = vectoriser.transform(subject.queries.texts)
        scores_QD = (queries_QW @ documents_DW.T).toarray()
        return {"tfidf": Scored(scores_QD, "cosine of TF-IDF vectors, 0 to 1")}


@dataclass(frozen=True)
class BM25:
    """Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", ch. 3.

    A word that occurs n times in the query counts n times. Its weight is
    ln(1 + (D - d + 0.5) / (d + 0.5)), d documents having it: the 1 keeps the weight of a word in
    most of the documents from being negative.
    """

    k1: float = 1.2
    """How soon repeating a word adds no more."""
    b: float = 0.75
    """How much a document's length counts against it (0 to 1)."""
    reads_model: ClassVar[bool] = False

    def score(self, subject: Subject) -> dict[str, Scored]:
        documents_DW, queries_QW = _counts(subject.documents.texts, subject.queries.texts)
        n_documents = documents_DW.shape[0]
        having_W = np.bincount(documents_DW.indices, minlength=documents_DW.shape[1])
        weight_W = np.log1p((n_documents - having_W + 0.5) / (having_W + 0.5))
        length_D = np.asarray(documents_DW.sum(axis=1)).ravel()
        relative_D = length_D / max(float(length_D.mean()), 1e-12)
        weighted_DW = documents_DW.tocoo()
        times_N, norm_N = weighted_DW.data, 1 - self.b + self.b * relative_D[weighted_DW.row]
        saturated_N = times_N * (self.k1 + 1) / (times_N + self.k1 * norm_N)
        weighted_DW.data = saturated_N * weight_W[weighted_DW.col]
        scores_QD = (queries_QW @ weighted_DW.tocsr().T).toarray()
        return {"bm25": Scored(scores_QD, "sum of BM25 weights, at least 0")}


def _counts(documents: Sequence[str], queries: Sequence[str]) -> tuple[Any, Any]:
    """Sparse counts of the documents' words in both: (D, W) and (Q, W), float64."""
    text = needed("sklearn.feature_extraction.text")
    counter = text.CountVectorizer(token_pattern=WORD, dtype=np.float64)
    documents_DW = counter.fit_transform(documents)
    return documents_DW, counter.transform(queries)
