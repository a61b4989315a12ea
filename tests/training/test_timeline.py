"""The course of a training: every step is somewhere, and only once."""

import itertools
import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_hf import SageError
from sage_hf.training.timeline import PassSize, plan


def size(rows, batch=8, accumulation=1):
    batches = math.ceil(rows / batch)
    return PassSize(rows, batches, math.ceil(batches / accumulation))


def timeline(rows=48, kept=19, warmup=1.0, refresh=0, epochs=4.0, max_steps=-1, accumulation=1):
    args = SimpleNamespace(
        sage_warmup_epochs=warmup,
        sage_refresh_epochs=refresh,
        num_train_epochs=epochs,
        max_steps=max_steps,
        gradient_accumulation_steps=accumulation,
    )
    everything, subset = size(rows, accumulation=accumulation), size(kept, accumulation=accumulation)
    return plan(everything, subset, args, step_rows=8 * accumulation)


def test_warm_up_passes_then_passes_over_the_subset():
    course = timeline()
    assert [segment.is_warmup for segment in course.segments] == [True, False, False, False]
    assert [segment.first_step for segment in course.segments] == [0, 6, 9, 12]
    assert (course.max_steps, course.epochs, course.samples) == (15, 4, 48 + 3 * 19)


@pytest.mark.parametrize(
    ("refresh", "expected"), [(0, [0]), (1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [0, 3]), (9, [0])]
)
def test_a_subset_is_chosen_first_and_then_after_every_refresh_passes(refresh, expected):
    passes = [segment for segment in timeline(refresh=refresh, epochs=6.0).segments if not segment.is_warmup]
    assert [number for number, segment in enumerate(passes) if segment.selects] == expected


def test_half_an_epoch_of_warm_up_leaves_the_rest_to_the_subset():
    course = timeline(warmup=0.5, epochs=1.0)
    warmup, subset = course.segments
    assert (warmup.steps, warmup.is_cut, warmup.size.updates) == (3, True, 6)
    assert (subset.start, subset.first_step) == (0.5, 3)
    assert course.max_steps == 3 + math.ceil(0.5 * 3)


@pytest.mark.parametrize(
    ("changes", "selected_at"),
    [({"warmup": 0.5, "epochs": 2.0}, 6), ({"warmup": 0.5, "epochs": 1.0}, 0), ({"warmup": 1.5, "max_steps": 8}, 6)],
    ids=["at the epoch's end", "or, where that is the end of all, at its start", "max_steps"],
)
def test_where_all_rows_are_kept_the_warm_up_cuts_no_epoch(changes, selected_at):
    course = timeline(kept=48, **changes)
    assert not any(segment.is_cut for segment in course.segments)
    assert [segment.first_step for segment in course.segments if segment.selects] == [selected_at]


def test_without_warm_up_the_first_pass_is_over_the_subset():
    course = timeline(warmup=0.0)
    assert not any(segment.is_warmup for segment in course.segments)
    assert course.max_steps == 12


def test_max_steps_wins_over_epochs():
    course = timeline(max_steps=10, epochs=100.0)
    assert course.max_steps == 10
    assert [segment.first_step for segment in course.segments] == [0, 6, 9]
    assert course.samples == 80


def test_rounding_of_floats_makes_no_extra_step():
    assert timeline(rows=240, warmup=0.1, epochs=2.0).segments[0].steps == 3  # 0.1 * 30 is 3.0000000000000004 there


@pytest.mark.parametrize("change", [{"warmup": 4.0}, {"warmup": 9.5}, {"max_steps": 6}, {"max_steps": 3}])
def test_a_warm_up_that_leaves_no_step_for_the_subset_is_refused(change):
    with pytest.raises(SageError, match="not shorter than the training") as caught:
        timeline(**change)
    assert caught.value.where == "sage_warmup_epochs"


@given(
    rows=st.integers(2, 200),
    share=st.floats(0.01, 1.0),
    warmup=st.floats(0.0, 3.0),
    more=st.floats(0.1, 4.0),
    refresh=st.integers(0, 3),
    accumulation=st.integers(1, 5),
    max_steps=st.integers(-1, 60),
)
def test_every_step_lies_in_exactly_one_segment(rows, share, warmup, more, refresh, accumulation, max_steps):
    kept = max(1, round(share * rows))
    settings = {"max_steps": max_steps or -1, "accumulation": accumulation}
    try:
        course = timeline(rows, kept, warmup, refresh, warmup + more, **settings)
    except SageError:
        return
    segments = course.segments
    assert [segment.number for segment in segments] == list(range(len(segments)))
    for one, following in itertools.pairwise(segments):
        assert following.first_step == one.first_step + one.steps
        assert following.start > one.start
        assert not (following.is_warmup and not one.is_warmup)
    assert segments[0].first_step == 0
    assert segments[-1].first_step < course.max_steps <= segments[-1].first_step + segments[-1].steps
    assert next(segment.selects for segment in segments if not segment.is_warmup)
    for step in range(course.max_steps):
        number, inside = course.locate(step)
        assert segments[number].first_step + inside == step
        assert 0 <= inside < segments[number].steps
    number, inside = course.locate(course.max_steps)
    if number == len(segments):
        assert course.max_steps == segments[-1].first_step + segments[-1].steps
        assert inside == 0
    else:  # inside the last one, as Trainer has it
        assert number == len(segments) - 1
        assert segments[-1].first_step + inside == course.max_steps


@given(rows=st.integers(1, 200), epochs=st.floats(1.01, 5.0), accumulation=st.integers(1, 5))
def test_with_all_rows_kept_it_is_as_long_as_trainers(rows, epochs, accumulation):
    course = timeline(rows, rows, 1.0, 1, epochs, accumulation=accumulation)
    assert course.max_steps == math.ceil(epochs * size(rows, accumulation=accumulation).updates - 1e-9)
    assert course.epochs == math.ceil(epochs)
    assert course.samples == pytest.approx(epochs * rows)
