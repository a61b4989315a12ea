"""How near rows are to a few target rows without gradients: by embeddings, and by the words that they hold.

Each rule gives a score a row, [N]; the highest are kept. All are deterministic.
"""

from __future__ import annotations

import itertools
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor, nn

BUCKETS = 10_000

# Token ids of a row [T] -> a weight for each token, [T].
Weighting = Callable[[Sequence[int]], np.ndarray]


def uniform(ids: Sequence[int]) -> np.ndarray:
    """All tokens alike: the mean."""
    return np.ones(len(ids))


def by_rarity(rows: Sequence[Sequence[int]]) -> Weighting:
    """Rare tokens more: ln((1 + N) / (1 + rows that hold it))."""
    held = Counter(token for ids in rows for token in set(ids))

    def weights(ids: Sequence[int]) -> np.ndarray:
        return np.array([np.log((1 + len(rows)) / (1 + held[token])) + 1e-6 for token in ids])

    return weights


def embed(body: nn.Module, rows: Sequence[Sequence[int]], weighting: Weighting, batch_size: int = 64) -> np.ndarray:
    """Weighted means [N, H] of a model's last hidden states; `rows` are token ids."""
    found = []
    with torch.no_grad():
        for first in range(0, len(rows), batch_size):
            batch = rows[first : first + batch_size]
            ids, weights = _padded(batch, weighting)
            states = body(input_ids=ids, attention_mask=(weights > 0).long()).last_hidden_state
            found.append((states * weights.unsqueeze(-1)).sum(1) / weights.sum(1, keepdim=True))
    return torch.cat(found).numpy()


def _padded(batch: Sequence[Sequence[int]], weighting: Weighting) -> tuple[Tensor, Tensor]:
    longest = max(map(len, batch))
    ids, weights = torch.zeros(len(batch), longest, dtype=torch.int64), torch.zeros(len(batch), longest)
    for number, row in enumerate(batch):
        ids[number, : len(row)] = torch.tensor(row)
        weights[number, : len(row)] = torch.from_numpy(weighting(row))
    return ids, weights


def similarity(rows: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Mean cosine of rows [N, H] with target rows [M, H], after the mean of all rows is taken off."""
    centre = rows.mean(0)
    one, other = (_unit(each - centre) for each in (rows, target))
    return one @ other.mean(0)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def word_importance(rows: Sequence[str], target: Sequence[str]) -> np.ndarray:
    """Mean log ratio of a row's hashed words and word pairs in the target and in all rows (DSIR, arXiv 2302.03169).

    DSIR sums and draws; here it is the mean, so that length does not count, and the highest are kept. A few target
    rows hold few pairs, so their frequencies are half those of all rows.
    """
    counted = [_grams(text) for text in rows]
    everywhere = np.full(BUCKETS, 1e-8) + np.sum([np.bincount(each, minlength=BUCKETS) for each in counted], axis=0)
    wanted = np.sum([np.bincount(_grams(text), minlength=BUCKETS) for text in target], axis=0)
    everywhere = everywhere / everywhere.sum()
    ratio = np.log((wanted / wanted.sum() + everywhere) / (2 * everywhere))
    return np.array([ratio[each].mean() for each in counted])


def _grams(text: str) -> np.ndarray:
    words = text.lower().split()
    grams = words + [f"{one} {other}" for one, other in itertools.pairwise(words)]
    return np.array([zlib.crc32(gram.encode()) % BUCKETS for gram in grams or [""]])


def tf_idf(rows: Sequence[str], target: Sequence[str]) -> np.ndarray:
    """Mean cosine of tf-idf vectors with those of the target rows."""
    vectorizer: Any = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
    found = vectorizer.fit_transform(rows)
    return np.asarray(found @ np.asarray(vectorizer.transform(target).mean(0)).T).ravel()
