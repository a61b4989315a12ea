import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score

from sage_hf.selection import classifiers, doubts
from sage_hf.selection.classifiers import Discriminant, block_rows
from sage_hf.selection.doubts import cross_fold


def rows(classes, count, width=24, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    centres = rng.normal(size=(classes, width))
    return (centres[labels] + rng.normal(size=(count, width)) * np.linspace(0.2, 1.0, width)).astype(
        np.float32
    ), labels


def test_a_discriminant_is_fishers(monkeypatch):
    x, labels = rows(5, 4000)
    some = np.arange(0, 4000, 2)
    found = Discriminant(x, some, labels[some]).predict_log_proba(x[1::2])
    wanted = LinearDiscriminantAnalysis().fit(x[some], labels[some]).predict_proba(x[1::2])
    assert np.allclose(np.exp(found).sum(1), 1.0)
    assert (found.argmax(1) == wanted.argmax(1)).mean() > 0.98  # but for what is shrunk
    assert np.abs(np.exp(found) - wanted).mean() < 0.02


@pytest.mark.parametrize(
    "x", [np.zeros((40, 3)), np.ones((40, 3)), np.eye(40)], ids=["zeros", "equal", "more numbers than rows"]
)
def test_a_discriminant_is_finite_of_whatever_rows(x):
    found = Discriminant(x.astype(np.float32), np.arange(40), np.arange(40) % 4).predict_log_proba(x)
    assert np.isfinite(found).all() and np.allclose(np.exp(found).sum(1), 1.0)


def test_many_classes_are_doubted_as_well_as_by_regressions(monkeypatch):
    x, right = rows(40, 2400)
    rng = np.random.default_rng(1)
    wrong = rng.random(2400) < 0.1
    labels = np.where(wrong, (right + rng.integers(1, 40, 2400)) % 40, right)
    found = []
    for many in (256, 2):
        for module in (classifiers, doubts):
            monkeypatch.setattr(module, "MANY_CLASSES", many)
        found.append(roc_auc_score(wrong, cross_fold([x, x], labels, 0).doubts))
    assert found[1] > found[0] - 0.005 and min(found) > 0.97


def test_what_is_held_of_odds_does_not_grow_with_the_classes():
    assert block_rows(10) == block_rows(256) == 2**14
    assert block_rows(5000) * 5000 <= 2**22 and block_rows(10**9) == 1
