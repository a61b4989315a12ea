"""Charts hold every row, on axes that fit them; kept rows stand above the line and others below."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_hf.report.charts import BOTTOM, LEFT, RIGHT, TOP, energy_shares, score_charts, spectrum_charts

from .facts import seen


def rows_in(bars, kind):
    """The sum of the counts that bars' words tell."""
    return sum(int(bar.words.split(": ")[1].split(" ")[0].replace(",", "")) for bar in bars if bar.kind == kind)


@pytest.mark.parametrize("groups", [1, 3, 20])
def test_every_row_of_the_largest_groups_is_in_a_bar(groups):
    scores = score_charts(seen(groups=groups))
    assert len(scores.groups) == min(groups, 12)
    assert scores.smaller == max(0, groups - 12)
    for group in scores.groups:
        assert rows_in(group.chart.bars, "kept") == group.kept.rows == 15
        assert rows_in(group.chart.bars, "other") == group.others.rows == 45


def test_kept_rows_stand_above_the_line_and_others_below():
    for group in score_charts(seen()).groups:
        middle = group.chart.baseline
        for bar in group.chart.bars:
            assert (bar.y + bar.height == pytest.approx(middle)) if bar.kind == "kept" else bar.y == middle
        assert [note.text for note in group.chart.notes] == ["kept", "not kept"]


def test_of_a_stream_kept_rows_stand_alone_on_the_axis():
    scores = score_charts(seen(others=False))
    assert not scores.is_log
    for group in scores.groups:
        assert group.others is None and group.chart.baseline == BOTTOM
        assert {bar.kind for bar in group.chart.bars} == {"kept"}


def test_counts_are_on_a_log_scale_where_one_side_is_far_higher():
    assert not score_charts(seen(kept_share=0.4)).is_log
    held = seen(groups=1, rows=5000)
    scores = score_charts(replace(held, kept=[held.others[0][::100]]))
    assert scores.is_log
    bars = scores.groups[0].chart.bars
    assert min(bar.height for bar in bars if bar.kind == "kept") > 5


def test_the_largest_are_shown_in_their_order():
    held = seen(groups=5)
    table = [replace(entry, rows=entry.rows + number % 3) for number, entry in enumerate(held.table)]
    assert [group.name for group in score_charts(replace(held, table=table), 2).groups] == ["class 1", "class 2"] or [
        group.name for group in score_charts(replace(held, table=table), 2).groups
    ] == ["class 2", "class 4"]


@given(
    st.lists(st.floats(-1, 1, width=32), max_size=30),
    st.lists(st.one_of(st.floats(-1, 1, width=32), st.just(float("nan"))), max_size=30),
)
def test_any_scores_stay_within_the_frame(kept, others):
    held = replace(seen(groups=1), kept=[np.float32(kept)], others=[np.float32(others)])
    (group,) = score_charts(held).groups
    assert rows_in(group.chart.bars, "kept") == len(kept)
    assert rows_in(group.chart.bars, "other") == int(np.isfinite(np.float32(others)).sum())
    for bar in group.chart.bars:
        assert bar.x >= LEFT and bar.x + bar.width <= RIGHT + 0.1 and bar.width > 0
        assert bar.y >= TOP and bar.y + bar.height <= BOTTOM
    for tick in group.chart.x_ticks:
        assert LEFT - 0.1 <= tick.at <= RIGHT + 0.1
    heights = sorted(tick.at for tick in group.chart.y_ticks)
    assert all(after - before >= 10 for before, after in itertools.pairwise(heights))


def test_the_spectrum_tells_each_direction_and_all_up_to_it():
    held = seen()
    assert energy_shares(held).tolist() == [0.4, 0.2, 0.1]
    each, together = spectrum_charts(held)
    assert len(each.line.split()) == 3
    assert "hold 70.0\u00a0% of the energy" in together.words
    assert "first of 3 directions holds 40.0\u00a0%" in each.words


@given(st.lists(st.floats(1e-12, 1e6), min_size=1, max_size=300))
def test_any_spectrum_stays_within_the_frame(values):
    spectrum = sorted(values, reverse=True)
    held = replace(seen(), spectrum=spectrum, squared_norm=sum(spectrum))
    for chart in spectrum_charts(held):
        for point in chart.line.split():
            x, y = map(float, point.split(","))
            assert LEFT - 0.1 <= x <= RIGHT + 0.1
            assert TOP <= y <= BOTTOM + 0.1
        assert len({tick.text for tick in chart.y_ticks}) == len(chart.y_ticks)


def test_without_energy_there_is_no_spectrum():
    assert spectrum_charts(replace(seen(), spectrum=[0.0, 0.0])) == []
    assert spectrum_charts(replace(seen(), squared_norm=0.0)) == []
