"""How many labels are wrong, estimated from how often the surest predictions disagree with them.

A classifier that has not seen a row, and is sure of its class, is right about nearly all such rows: what disagrees
there is the labels. The further down the list of its predictions, the more of its own errors come in. So the rate of
disagreement is read along the list, from the surest prediction on, as

    rate(u) = r + (1 - r) a u^b,    u in (0, 1) the place in the list,

and r, the rate where the classifier is surest, is the share of wrong labels. The surest rows are the "anchor points"
of Liu and Tao (arXiv 1411.7718) and Patrini et al. (arXiv 1609.03683); the curve uses all rows in the place of the few
at the end. It needs nothing of the kind of noise: labels that are wrong by chance, and classes that are taken for each
other. Beside it, mixture proportion estimation on relabelled rows was as good for chance and blind to the second kind,
and confident learning's joint (arXiv 1911.00068) gave 7 to 14 points too many on hard text (docs/strategies.md).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Stretches of the list that are counted, and rows in one at least.
_BINS, _BIN_ROWS = 40, 10
# Rows that are looked at, at most: the share of more is known well enough.
_MOST_ROWS = 2**17
# Values that r, a and b are tried at. An exponent below 1.75 would let the surest fifth be hardly surer than the rest.
_SHARES = np.concatenate([np.arange(0.0, 0.05, 0.0025), np.arange(0.05, 0.8, 0.005)])
_HEIGHTS = np.array([0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
_EXPONENTS = np.array([1.75, 2.5, 3.5, 5.0, 7.0, 10.0])
# Of the errors that guessing makes, the share from which on a classifier's own surest predictions know nothing.
_MOST_OF_GUESSING = 0.5
# Share of wrong labels that a clean dataset may seem to have: some rows are of two classes.
_AMBIGUOUS = 0.005


def wrong_share(
    disagrees: npt.NDArray[np.bool_], confidence: npt.NDArray[np.floating], commonest: float
) -> float | None:
    """The share of M labels that is wrong, in [0, 0.5]; None where nothing can be told.

    0 where the labels may as well be clean: where a share of at most 0.5 % explains the list as well, by the Bayesian
    information criterion. Nothing can be told of too few rows, and where even the surest predictions disagree with the
    labels half as often as guessing the commonest class would: then it is the classifier that knows too little.

    Args:
        disagrees: [M], whether a classifier that has not seen the row finds another class likelier than its label.
        confidence: [M], the probability of that classifier's likeliest class.
        commonest: Share of the commonest class.
    """
    stride = -(-len(disagrees) // _MOST_ROWS) or 1
    disagrees, confidence = disagrees[::stride], confidence[::stride]
    count = len(disagrees)
    bins = min(_BINS, count // _BIN_ROWS)
    if bins < 3:
        return None
    wrong = np.array([part.sum() for part in np.array_split(disagrees[np.argsort(-confidence, kind="stable")], bins)])
    sizes = np.array([len(part) for part in np.array_split(disagrees, bins)])
    likelihood = _likelihoods(wrong, sizes)
    best = int(likelihood.argmax())
    clean = likelihood[_SHARES <= _AMBIGUOUS].max()
    if likelihood[best] - clean <= np.log(count) / 2:
        return 0.0
    share = float(_SHARES[best])
    return share if share < _MOST_OF_GUESSING * (1 - commonest) else None


def _likelihoods(wrong: npt.NDArray[np.integer], sizes: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """For every share, the log likelihood of the counts of stretches [bins] under the best curve with it."""
    place = (np.arange(len(wrong)) + 0.5) / len(wrong)
    curves = _HEIGHTS[:, None, None] * place ** _EXPONENTS[:, None]
    found = np.empty(len(_SHARES))
    for number, share in enumerate(_SHARES):
        rate = np.clip(share + (1 - share) * curves, 1e-4, 1 - 1e-4)
        found[number] = (wrong * np.log(rate) + (sizes - wrong) * np.log(1 - rate)).sum(-1).max()
    return found
