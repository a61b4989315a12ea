import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_hf.selection.label_noise import wrong_share as share_of


def wrong_share(disagrees, confidence, commonest=0.1):
    return share_of(disagrees, confidence, commonest)


def listed(share, height, exponent, count, seed=0):
    """Disagreements whose rate follows the curve, and the confidence of the predictions, in any order."""
    rng = np.random.default_rng(seed)
    place = (np.arange(count) + 0.5) / count
    disagrees = rng.random(count) < share + (1 - share) * height * place**exponent
    order = rng.permutation(count)
    return disagrees[order], (1 - place)[order]


@pytest.mark.parametrize("share", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4])
@pytest.mark.parametrize(("height", "exponent"), [(0.05, 2), (0.3, 3), (0.7, 2.5), (1.0, 6)])
def test_the_share_is_found_whatever_the_classifiers_own_errors(share, height, exponent):
    assert wrong_share(*listed(share, height, exponent, 20_000)) == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_a_clean_list_with_a_few_rows_of_two_classes_has_no_wrong_labels(seed):
    assert wrong_share(*listed(0.004, 0.6, 3, 2000, seed)) == 0


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), max_size=300))
def test_a_share_is_a_share_and_depends_on_no_order_of_distinct_rows(rows):
    disagrees, confidence = np.array([row[0] for row in rows], bool), np.array([row[1] for row in rows])
    confidence = confidence + np.arange(len(rows)) * 1e-3
    share = wrong_share(disagrees, confidence)
    assert share is None or 0 <= share <= 0.5
    order = np.random.default_rng(0).permutation(len(rows))
    assert wrong_share(disagrees[order], confidence[order]) == share


@pytest.mark.parametrize("count", [0, 1, 29])
def test_of_too_few_rows_nothing_is_told(count):
    assert wrong_share(np.ones(count, bool), np.ones(count)) is None


def test_of_very_many_rows_a_part_tells_the_same():
    assert wrong_share(*listed(0.1, 0.5, 3, 400_000)) == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize(("share", "commonest"), [(0.5, 0.5), (0.33, 0.5), (0.6, 0.1), (0.3, 0.8)])
def test_of_a_classifier_that_is_hardly_ever_right_where_it_is_surest_nothing_is_told(share, commonest):
    assert wrong_share(*listed(share, 0.1, 3, 4000), commonest) is None
