import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_hf.utils import columns
from sage_hf.utils.columns import code_type, coded, counts_of, picked, places_by_code, places_of, scratch

codes = st.lists(st.integers(0, 5), max_size=60).map(lambda values: np.array(values, dtype=np.uint8))


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    """Blocks and files at a size that tests reach."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "BLOCK_ROWS", 7)
        patch.setattr(columns, "_LEAST_BYTES", 64)
        yield


@settings(max_examples=50)
@given(codes=codes, seed=st.integers(0, 99))
def test_blocks_give_what_numpy_gives_at_once(codes, seed):
    mask = np.random.default_rng(seed).random(len(codes)) < 0.5
    assert np.array_equal(places_of(mask), np.flatnonzero(mask))
    assert np.array_equal(picked(codes, places_of(mask)), codes[mask])
    assert np.array_equal(counts_of(codes, 6), np.bincount(codes, minlength=6))
    assert np.array_equal(counts_of(codes), np.bincount(codes))
    assert np.array_equal(counts_of(codes, 6, mask), np.bincount(codes[mask], minlength=6))
    for code, places in enumerate(places_by_code(codes, 6)):
        assert np.array_equal(places, np.flatnonzero(codes == code))
    values = 9 * codes.astype(np.int32) - 20
    for found, wanted in zip(coded(values), np.unique(values, return_inverse=True), strict=True):
        assert np.array_equal(found, wanted)


def test_places_of_codes_are_parts_of_one_array():
    parts = places_by_code(np.array([1, 0, 1, 2], dtype=np.uint8), 3)
    parts[0][:] = 9
    assert parts[0].base is parts[1].base is parts[2].base
    assert parts[0].dtype == np.int32


@pytest.mark.parametrize("shape", [0, 3, 100, (2, 100)])
def test_scratch_is_zeros_that_hold_what_is_written(shape):
    array = scratch(shape, np.float64)
    assert type(array) is np.ndarray
    assert array.shape == np.zeros(shape).shape and not array.any()
    array[...] = 2.5
    assert (array == 2.5).all()


def test_scratch_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    array = scratch(100, np.int64)
    assert not list(tmp_path.iterdir())
    assert array.sum() == 0


def test_scratch_is_in_memory_where_no_file_can_be_made(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert scratch(100, np.int64).base is None


@pytest.mark.parametrize("count", [1, 256, 257, 2**15, 2**15 + 1])
def test_the_type_of_codes_holds_the_last_one(count):
    assert np.array([count - 1]).astype(code_type(count))[0] == count - 1
