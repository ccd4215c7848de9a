"""A world in which datamodels are true: outcomes are sums of effects, and noise of known size."""

from dataclasses import dataclass

import numpy as np


@dataclass
class LinearWorld:
    effects: np.ndarray  # (Q, D)
    noise: float
    missed: float = 0.0

    def outcomes(self, trained_SD, runs, draw, *, seed_effect=0.0):
        """(S, K, Q): each subset has its own deviation, each run its own noise."""
        n, (n_questions, _) = len(trained_SD), self.effects.shape
        expected = 3.0 + trained_SD @ self.effects.T
        own = draw.normal(0, 1, (n, 1, n_questions)) * self.missed
        shared = draw.normal(0, 1, (1, runs, n_questions)) * seed_effect
        noise = draw.normal(0, 1, (n, runs, n_questions)) * self.noise
        return expected[:, None] + own + shared + noise


def half_of(n_subsets, n_documents, draw):
    """Each document in each subset with probability one half."""
    return (draw.random((n_subsets, n_documents)) < 0.5).astype(float)


def fixed_size(n_subsets, n_documents, size, draw):
    trained = np.zeros((n_subsets, n_documents))
    for row in trained:
        row[draw.choice(n_documents, size, replace=False)] = 1
    return trained
