import numpy as np
import pytest

from sage_hf.data.longest import LongestRow, NormTally


def tally(norms, *cuts):
    made = NormTally()
    for first, last in zip((0, *cuts), (*cuts, len(norms)), strict=True):
        made.add(np.array(norms[first:last], dtype=np.float32), first)
    return made.finish()


@pytest.mark.parametrize("cuts", [(), (1,), (3, 7), (0, 2, 2, 10)], ids=str)
def test_the_longest_row_is_found_whatever_parts_rows_come_in(cuts):
    norms = [1.0, 2.0, np.nan, 5.0, 0.0, 5.0, 2.0, 1.0, 3.0, 0.5, 1.0, 1.0]
    squares = [1, 4, 25, 4, 1, 9, 0.25, 1, 1]
    found = tally(norms, *cuts)
    assert (found.row, found.norm, found.rows) == (3, 5.0, 10)
    assert found.others == pytest.approx((sum(squares) / 9) ** 0.5, rel=1e-5)
    assert found.share == pytest.approx(25 / (25 + sum(squares)), rel=1e-5)


def test_of_no_rows_there_is_none():
    assert NormTally().finish() is None
    assert tally([np.nan, 0.0]) is None


def test_a_row_is_named_only_where_it_outweighs_all_others_and_these_are_some():
    heavy = tally([1.0] * 20 + [30.0])
    assert "Row 20 holds 97.8% of the squared norm of all 21 gradients" in heavy.warning
    assert "max_row_norm=1 (--max-row-norm 1)" in heavy.warning
    assert not tally([1.0] * 20 + [4.0]).warning
    assert not tally([1.0, 30.0]).warning
    assert LongestRow(0, 1.0, 0.0, 12).share == 1.0 and LongestRow(0, 1.0, 0.0, 12).warning
