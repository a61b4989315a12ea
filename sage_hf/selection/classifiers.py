"""Cheap classifiers of rows by their vectors: what doubts labels, and what that costs with thousands of classes.

A logistic regression holds a number for every row and class, over and over: with 1,000 classes it takes an hour where
it takes a minute with ten. From `MANY_CLASSES` on a linear discriminant (Fisher 1936) takes its place: the mean of
every class, and one covariance of all rows around theirs, both of one reading of the rows.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from ..strategies import Vectors
from ..utils.columns import BLOCK_ROWS, blocks, coded

# Classes from which on a discriminant is made.
MANY_CLASSES = 256
# Share of a covariance that is replaced by one of independent numbers alike: few rows tell little of it.
_SHRINKAGE = 0.1
# Rows x classes whose probabilities are held at a time.
_MOST_ODDS = MANY_CLASSES * BLOCK_ROWS


class Classifier(Protocol):
    """Says of rows how likely each class is.

    Attributes:
        classes_: [C] the classes that it knows, ascending.
    """

    classes_: npt.NDArray[np.integer]

    def predict_log_proba(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.floating]:
        """[n, C] log probabilities of rows [n, width]."""
        ...


class Discriminant:
    """Linear discriminant analysis with a shrunk covariance.

    Args:
        vectors: Of all rows.
        rows: [n], those to learn from.
        codes: [n], their classes.
    """

    def __init__(self, vectors: Vectors, rows: npt.NDArray[np.integer], codes: npt.NDArray[np.integer]) -> None:
        self.classes_, places = coded(codes)
        width = vectors.shape[1]
        sums, square = np.zeros((len(self.classes_), width)), np.zeros((width, width))
        for block in blocks(len(rows)):
            x = np.asarray(vectors[rows[block]], dtype=np.float64)
            np.add.at(sums, places[block], x)
            square += x.T @ x
        counts = np.bincount(places, minlength=len(self.classes_))
        means = sums / counts[:, None]
        within = (square - means.T @ sums) / max(1, len(rows) - len(self.classes_))
        level = max(float(np.trace(within)) / width, np.finfo(np.float32).tiny)
        within = (1 - _SHRINKAGE) * within + _SHRINKAGE * level * np.eye(width)
        self._weights = np.linalg.solve(within, means.T)
        self._offsets = np.log(counts / len(rows)) - 0.5 * (means.T * self._weights).sum(0)

    def predict_log_proba(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.floating]:
        """See `Classifier`."""
        odds = x @ self._weights + self._offsets
        odds -= odds.max(1, keepdims=True)
        odds -= np.log(np.exp(odds).sum(1, keepdims=True))
        return np.asarray(odds)


def classifier(
    vectors: Vectors,
    rows: npt.NDArray[np.integer],
    codes: npt.NDArray[np.integer],
    classes: int,
    strength: float,
    tolerance: float,
) -> Classifier:
    """What has learned the classes of some rows.

    Args:
        vectors: Of all rows.
        rows: [n], those to learn from.
        codes: [n], their classes.
        classes: Number of classes of all rows.
        strength: Of a regression, the inverse of its penalty's.
        tolerance: When a regression stops.
    """
    if classes >= MANY_CLASSES:
        return Discriminant(vectors, rows, codes)
    made: Classifier = LogisticRegression(C=strength, max_iter=200, tol=tolerance).fit(vectors[rows], codes)
    return made


def block_rows(classes: int) -> int:
    """Rows whose probabilities are computed at a time."""
    return max(1, min(BLOCK_ROWS, _MOST_ODDS // max(1, classes)))
