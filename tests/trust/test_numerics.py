"""Odd numbers: gradients that are NaN, infinite, zero, huge, tiny or all alike, and groups of every size."""

import json
import logging
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sage_hf import SageConfig, find_label_issues
from sage_hf.data.status import REASONS
from sage_hf.errors import GradientError, LabelError
from sage_hf.passes.extractor import halved, restored
from sage_hf.strategies import STRATEGIES

from ..cases import image_rows, vit
from ..training.runs import sage_args, train
from .odd_rows import UNUSABLE, ZERO, Classifier, make_rows, select, selector
from .scale import cases, some, tried

OWN = ("agreement", "auto")


@contextmanager
def no_numeric_warning():
    """Inside, a warning of NumPy, scikit-learn or torch is an error."""
    with np.errstate(all="raise", under="ignore"), warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("error", UserWarning)
        yield


def told(selection):
    """All that is told of a selection, as strict JSON, and shown."""
    values = selection._files()[1]
    json.dumps(values, allow_nan=False)
    assert selection.report() and str(selection) and selection._repr_html_()
    return values


def with_nan(rows, numbers):
    """`image_rows` of which some have nothing but NaN."""
    pixels = np.array(rows["pixel_values"], dtype=np.float32)
    pixels[numbers] = np.nan
    odd = Dataset.from_dict({"pixel_values": pixels, "label": rows["label"]})
    return odd.cast_column("label", rows.features["label"])


# --------------------------------------------------------- rows that are not usable
@st.composite
def unusable_rows(draw, count=40):
    most = draw(st.sampled_from([1, 3, count // 2, count - 1]))
    rows = draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=most, unique=True))
    return {row: draw(st.sampled_from(sorted(UNUSABLE))) for row in rows}


@settings(max_examples=cases(5, 150))
@given(unusable_rows(), st.sampled_from(OWN), st.booleans())
def test_unusable_rows_are_set_aside_by_name_and_the_others_chosen_to_the_bit_as_if_these_weighed_nothing(
    found, strategy, is_stream
):
    tried()
    odd = {row: UNUSABLE[kind] for row, kind in found.items()}
    with no_numeric_warning():
        selection = select(make_rows(40, odd=odd), is_stream, strategy=strategy)
        plain = select(make_rows(40, odd=dict.fromkeys(odd, ZERO)), is_stream, strategy=strategy)
        told(selection)
    kinds = {row: REASONS[2 if kind == "zero gradient" else 1] for row, kind in found.items()}
    assert selection.set_aside == kinds
    assert np.array_equal(selection.indices, plain.indices)
    assert selection.kept_scores.tobytes() == plain.kept_scores.tobytes()
    assert not np.isin(selection.indices, list(odd)).any()
    assert len(selection) == min(10, 40 - len(odd))


@pytest.mark.parametrize("is_stream", some([False, True], 1))
@pytest.mark.parametrize("kind", some([*sorted(UNUSABLE), "one NaN weight"], 3))
def test_without_one_usable_row_an_error_tells_why(kind, is_stream):
    model = Classifier()
    if kind == "one NaN weight":
        model.head.weight.data[1, 2] = torch.nan
    odd = {} if kind not in UNUSABLE else dict.fromkeys(range(20), UNUSABLE[kind])
    count = "20 are exactly zero" if kind == "zero gradient" else "20 are not finite"
    with pytest.raises(GradientError, match="No row has a usable gradient") as error:
        select(make_rows(20, odd=odd), is_stream, model=model)
    assert count in str(error.value) and "model's weights" in str(error.value)


def test_a_row_whose_numbers_are_nan_is_no_label_issue_and_spoils_no_other():
    rows = image_rows(120)
    odd = with_nan(rows, [7, 50])
    with no_numeric_warning():
        issues = find_label_issues(vit(), odd, progress=False)
    assert np.isfinite(issues.label_doubt).all()
    assert not np.isin(issues.rows, [7, 50]).any() and (issues.label_doubt[[7, 50]] == 0).all()
    whole = find_label_issues(vit(), rows, progress=False)
    others = np.setdiff1d(np.arange(120), [7, 50])
    assert np.corrcoef(issues.label_doubt[others], whole.label_doubt[others])[0, 1] > 0.9


def test_a_model_that_makes_nan_of_all_rows_finds_no_label_issues_and_says_why():
    model = vit()
    next(model.vit.parameters()).data.fill_(torch.nan)
    with pytest.raises(LabelError, match="no row the model gives a finite embedding"):
        find_label_issues(model, image_rows(40), progress=False)


def test_a_training_never_takes_a_row_that_is_nan_when_it_chooses(tmp_path):
    odd = with_nan(image_rows(48), [3, 20])
    args = sage_args(tmp_path, sage_warmup_epochs=0, sage_strategy="auto", num_train_epochs=1)
    trainer = train(vit(), args, odd)
    assert {3, 20} == set(trainer.selection.set_aside)
    assert not np.isin(trainer.selection.indices, [3, 20]).any()
    assert all(torch.isfinite(weight).all() for weight in trainer.model.parameters())


# ------------------------------------------------------------------------- scale
@pytest.mark.parametrize("cache", some([None, "auto", "float32"], 1))
@pytest.mark.parametrize("power", some([*range(-40, 41, 5)], 3))
def test_gradients_from_1e_minus_12_to_1e_12_are_chosen_from_alike_to_the_bit(power, cache, tmp_path):
    scaled = make_rows(odd=dict.fromkeys(range(48), (2.0**power, 0.0)))
    one, other = (select(rows, cache_gradients=cache, cache_dir=tmp_path) for rows in (make_rows(), scaled))
    assert one.scores.tobytes() == other.scores.tobytes() and np.array_equal(one.indices, other.indices)
    told(other)


@pytest.mark.parametrize("power", some([101, 110, 126, 127], 2))
def test_gradients_that_would_overflow_a_sketch_are_set_aside(power):
    odd = dict.fromkeys((3, 4, 20), (2.0**power, 0.0))
    selection, plain = (select(make_rows(odd=each)) for each in (odd, dict.fromkeys(odd, ZERO)))
    assert [*selection.set_aside] == [3, 4, 20] and np.array_equal(selection.indices, plain.indices)


@pytest.mark.parametrize("dtype", some([torch.bfloat16, torch.float16, torch.float32], 3))
@pytest.mark.parametrize("power", some([-40, -8, 0, 8, 40], 2))
def test_models_in_half_precision_score_scaled_rows_alike(dtype, power):
    if dtype == torch.float16:  # whose own gradients end at 6e-8 and 6e4
        power = max(-8, min(8, power))
    scaled = make_rows(odd=dict.fromkeys(range(48), (2.0**power, 0.0)))
    one, other = (select(rows, model=Classifier().to(dtype), strategy="agreement") for rows in (make_rows(), scaled))
    assert np.allclose(one.scores, other.scores, atol=0.02) and np.isfinite(other.scores).all()
    assert len(np.intersect1d(one.indices, other.indices)) >= 11


@settings(max_examples=cases(4, 60))
@given(st.lists(st.integers(-40, 40), min_size=48, max_size=48))
def test_rows_of_any_lengths_cut_to_one_score_as_if_they_had_been_alike(powers):
    tried()
    odd = {row: (2.0**power, 0.0) for row, power in enumerate(powers)}
    with no_numeric_warning():
        one = select(make_rows(), max_row_norm=1e-20)
        other = select(make_rows(odd=odd), max_row_norm=1e-20)
        told(select(make_rows(odd=odd)))
    assert one.scores.tobytes() == other.scores.tobytes() and np.array_equal(one.indices, other.indices)


@settings(max_examples=cases(60, 3000))
@given(
    arrays(
        np.float32,
        array_shapes(min_dims=2, max_dims=2),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
def test_rounding_to_half_precision_keeps_every_scale_and_is_done_once(values):
    tried()
    vectors = torch.from_numpy(values)
    stored, factor = halved(vectors)
    back = restored(stored, factor)
    assert torch.isfinite(stored).all() and torch.isfinite(back).all()
    largest = vectors.abs().amax(1, keepdim=True).double()
    assert ((back.double() - vectors.double()).abs() <= 2.0**-11 * largest + 2.0**-149).all()
    assert torch.equal(restored(*halved(back)), back)


# ---------------------------------------------------------------- one row dominates
def test_one_row_that_outweighs_all_is_named_and_cut_as_if_it_were_one_of_them(caplog, tmp_path):
    ordinary = select(make_rows())
    row = int(np.argmax(ordinary.signals.norms))
    rows = make_rows(odd={row: (2.0**20, 0.0)})
    with caplog.at_level(logging.WARNING):
        free = select(rows)
    assert f"Row {row} holds 100.0% of the squared norm" in caplog.text and "max_row_norm=" in caplog.text
    assert free.stats.longest.row == row and f"Row {row}" in free.stats.warning and f"Row {row}" in free.report()
    most = free.stats.longest.others
    plain = select(make_rows(), max_row_norm=most)
    cut = select(rows, max_row_norm=most)
    assert cut.scores.tobytes() == plain.scores.tobytes() and np.array_equal(cut.indices, plain.indices)
    assert not cut.stats.longest.warning and f"max_row_norm={most}" in cut.report()
    kept = [np.corrcoef(each.scores, ordinary.scores)[0, 1] for each in (free, cut)]
    assert kept[1] > 0.95 > kept[0]
    assert cut.signals.norms[row] == pytest.approx(free.signals.norms[row])  # a signal of its own, as long as it is


@pytest.mark.parametrize("changes", [{"batch_size": 5}, {"cache_gradients": None}], ids=str)
def test_cut_rows_are_the_same_in_other_batches_and_without_a_file(changes):
    rows = make_rows(odd={7: (1e6, 0.0), 30: (1e4, 0.0)})
    one, other = (select(rows, max_row_norm=0.5, **each) for each in ({}, changes))
    assert np.allclose(one.scores, other.scores, atol=1e-6) and np.array_equal(one.indices, other.indices)


@pytest.mark.parametrize("strategy", OWN)
def test_a_stream_cuts_as_a_dataset_does(strategy):
    rows = make_rows(odd={7: (1e6, 0.0)})
    one, other = (select(rows, each, max_row_norm=0.5, strategy=strategy) for each in (False, True))
    assert np.array_equal(one.indices, other.indices) and one.kept_scores.tobytes() == other.kept_scores.tobytes()
    assert one.stats.longest == other.stats.longest


def test_kept_gradients_serve_with_and_without_a_cut_and_finished_parts_do_not(tmp_path):
    rows = make_rows(odd={7: (1e6, 0.0)})
    stored = {"cache_gradients": "float16", "cache_dir": tmp_path / "cache"}
    for most in (None, 0.5):
        fresh = select(rows, max_row_norm=most, cache_gradients="auto")
        again = select(rows, max_row_norm=most, resume_dir=tmp_path / "runs", **stored)
        assert fresh.scores.tobytes() == again.scores.tobytes()
    assert len([*(tmp_path / "cache").iterdir()]) == 1 and len([*(tmp_path / "runs").iterdir()]) == 2


# -------------------------------------------------------------- rows and groups alike
ALIKE = {
    "one row": {"count": 1, "classes": 1},
    "two rows": {"count": 2, "classes": 2},
    "two rows of one class": {"count": 2, "classes": 1},
    "all rows equal": {"count": 40, "copies_of": 1},
    "copies of three rows": {"count": 40, "copies_of": 3},
    "one class": {"count": 40, "classes": 1},
    "constant labels": {"count": 40, "labels": [1] * 40},
    "a row a class": {"count": 40, "classes": 40},
    "many small classes": {"count": 300, "classes": 100},
    "one large class": {"count": 60, "classes": 8, "labels": [0] * 53 + [*range(1, 8)]},
}


@pytest.mark.parametrize("size", some([3, 64, 500], 1))
@pytest.mark.parametrize("name", ALIKE)
def test_every_strategy_keeps_exactly_as_many_rows_as_asked_of_whatever_rows(name, size):
    rows = make_rows(**ALIKE[name])
    with no_numeric_warning():
        made = selector(rows, sketch_size=size)
        signals = made.gather(rows)
        for strategy in some(sorted(STRATEGIES), 13):
            for count in sorted({1, 2, len(rows) // 3, len(rows) - 1, len(rows)} & {*range(1, len(rows) + 1)}):
                for balance in some(["proportional", "none", "equal", "sqrt"], 1):
                    tried()
                    config = SageConfig(num_examples=count, strategy=strategy, balance=balance, sketch_size=size)
                    selection = made.choose(rows, signals, config)
                    assert len(selection) == len(set(selection.indices.tolist())) == count
                    assert np.isfinite(selection.kept_scores).all()
        told(selection)


@pytest.mark.parametrize("strategy", some(sorted(STRATEGIES), 2))
@pytest.mark.parametrize("name", some(sorted(ALIKE), 4))
def test_streams_keep_exactly_as_many_rows_as_asked_of_whatever_rows(name, strategy):
    rows = make_rows(**ALIKE[name])
    with no_numeric_warning():
        for count in sorted({1, max(1, len(rows) // 3), len(rows)}):
            tried()
            selection = select(rows, True, strategy=strategy, fraction=None, num_examples=count)
            assert len(selection) == count and np.isfinite(selection.kept_scores).all()
        told(selection)


# ------------------------------------------------------------------- deterministic
def test_a_selection_needs_nothing_that_torch_calls_nondeterministic():
    rows = make_rows(60)
    plain = select(rows)
    torch.use_deterministic_algorithms(True)
    try:
        strict = select(rows)
    finally:
        torch.use_deterministic_algorithms(False)
    assert plain.scores.tobytes() == strict.scores.tobytes() and np.array_equal(plain.indices, strict.indices)
