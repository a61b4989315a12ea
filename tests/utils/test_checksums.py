"""A sealed file is believed as it was written, and not otherwise."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from sage_hf.utils.checksums import CHECKSUM, UNSEALED, check_seal, file_digest, seal, sealed, set_aside


def test_sealed_json_and_safetensors_are_still_json_and_safetensors(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({CHECKSUM: UNSEALED, "é": 1}))
    save_file({"a": np.arange(9)}, tmp_path / "a.safetensors", {CHECKSUM: UNSEALED})
    for path in tmp_path.iterdir():
        with pytest.raises(ValueError, match="another"):
            check_seal(path)
        seal(path)
        check_seal(path)
    assert json.loads((tmp_path / "a.json").read_text())["é"] == 1
    assert load_file(tmp_path / "a.safetensors")["a"].tolist() == list(range(9))


@pytest.mark.parametrize("bytes_of_it", [100, 2**20 - 1, 2**20, 3 * 2**20 + 5])
def test_every_changed_bit_and_every_cut_is_found(tmp_path, bytes_of_it):
    path, random = tmp_path / "a.safetensors", np.random.default_rng(0)
    save_file({"a": random.integers(0, 256, bytes_of_it, dtype=np.uint8)}, path, {CHECKSUM: UNSEALED, "name": "x"})
    seal(path)
    held = path.read_bytes()
    for place in random.integers(0, 8 * len(held), 30):
        broken = bytearray(held)
        broken[place // 8] ^= 1 << (place % 8)
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="checksum"):
            check_seal(path)
    for size in random.integers(0, len(held), 10):
        path.write_bytes(held[:size])
        with pytest.raises(ValueError, match="checksum"):
            check_seal(path)


@given(st.dictionaries(st.text(), st.text() | st.integers()), st.data())
def test_a_sealed_line_is_found_changed_whatever_is_in_it(values, data):
    line = sealed(json.dumps({CHECKSUM: UNSEALED, **values}, ensure_ascii=False))
    check_seal(line)
    place = data.draw(st.integers(0, len(line) - 1))
    other = line[:place] + data.draw(st.characters(codec="utf-8").filter(lambda sign: sign != line[place]))
    with pytest.raises(ValueError, match="checksum"):
        check_seal(other + line[place + 1 :])


def test_files_of_older_versions_have_no_checksum_and_may_be_believed(tmp_path):
    path = tmp_path / "old.json"
    path.write_text("{}")
    check_seal(path, is_needed=False)
    with pytest.raises(ValueError, match="no checksum"):
        check_seal(path)


def test_the_digest_is_of_all_bytes(tmp_path):
    path = tmp_path / "rows"
    path.write_bytes(bytes(2**21 + 3))
    first = file_digest(path)
    path.write_bytes(bytes(2**21 + 2) + b"\1")
    assert file_digest(path) != first


def test_what_is_damaged_gets_another_name_in_the_place_of_what_had_it(tmp_path, caplog):
    path, aside = tmp_path / "rows", tmp_path / "rows.damaged"
    for _ in range(2):
        path.mkdir()
        (path / "file").write_text("x")
        assert set_aside(path, "it is a folder", "it is made again")
        assert not path.exists() and (aside / "file").exists()
    path.write_text("x")
    assert set_aside(path, "why", "it is made again") and aside.read_text() == "x"
    path.mkdir()
    assert set_aside(path, "why", "it is made again") and aside.is_dir()
    assert set_aside(path, "it is gone", "it is made again")
    assert all(str(path) in line and "it is made again" in line for line in caplog.messages)
