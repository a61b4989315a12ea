"""Label issues that no model was asked for."""

import numpy as np

from sage_hf import LabelIssues

# What a csv has trouble with.
TEXTS = [
    "plain",
    "one, two",
    'she said "no"',
    "two\nlines",
    "a lone \r return",
    "emoji 🙂, ünïcode",
    "=1+1",
    " spaces ",
    "NA",
    'all, "of\r\nit" 🙂',
]


def issues_of(rows, suggested, places=None, column="label"):
    """Label issues of some rows, all by default, the first the most doubted."""
    places = np.arange(len(rows)) if places is None else np.array(places, dtype=np.int64)
    doubts = np.zeros(len(rows))
    doubts[places] = np.linspace(0.9, 0.6, len(places))
    return LabelIssues(rows, column, doubts, suggested, places, 0.1)
