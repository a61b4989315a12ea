"""Real images with labels that were made wrong."""

import numpy as np
from sklearn.datasets import load_digits

from sage_hf.data.groups import Groups
from sage_hf.data.status import SCORED
from sage_hf.selection.signals import RowSignals


def digits():
    """Pixels [1797, 64] and labels."""
    data = load_digits()
    return data.data.astype(np.float32), data.target


def made_wrong(labels, share, kind="uniform", seed=0):
    """Labels of which a share is another class ("uniform") or the next one ("class"), and which these are."""
    rng = np.random.default_rng(seed)
    wrong = np.zeros(len(labels), dtype=bool)
    wrong[rng.permutation(len(labels))[: round(share * len(labels))]] = True
    other = rng.integers(1, 10, len(labels)) if kind == "uniform" else 1
    return np.where(wrong, (labels + other) % 10, labels), wrong


def signals_of(vectors, labels):
    """What is known of rows whose embeddings, gradients and inputs are the same vectors."""
    flat, count = np.linspace(0, 1, len(labels)).astype(np.float32), len(labels)
    return RowSignals(
        Groups.from_values("label", labels.tolist()),
        np.full(count, SCORED, np.uint8),
        flat,
        flat,
        labels=labels.astype(np.int32),
        sketched=vectors,
        spectrum=np.ones(vectors.shape[1], np.float32),
        embeddings=vectors,
        inputs=vectors,
    )
