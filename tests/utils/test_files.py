"""A file or folder is whole, or what it was before."""

import errno
import os
from pathlib import Path

import pytest

from sage_hf import SageSelector, Selection, warm_up
from sage_hf.errors import ConfigError, OutputError
from sage_hf.hub.files import check_output, check_rows_output
from sage_hf.hub.paths import check_list_file, check_new_rows
from sage_hf.utils.files import check_name, recover, whole_file, whole_folder

from ..cases import image_rows, vit


def write(folder, text):
    with whole_folder(folder, "It") as working:
        (working / "file").write_text(text)


def test_a_folder_takes_the_place_of_what_was_there(tmp_path):
    for text in ("one", "two"):
        write(tmp_path / "out", text)
        assert (tmp_path / "out" / "file").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("at", [0, 1], ids=["moving the old one", "moving the new one"])
def test_a_rename_that_fails_leaves_the_old_folder(tmp_path, monkeypatch, at):
    write(tmp_path / "out", "old")
    rename, calls = os.replace, []

    def failing(*paths):
        calls.append(paths)
        if len(calls) == at + 1:
            raise OSError(28, "No space left on device")
        return rename(*paths)

    monkeypatch.setattr("pathlib.os.replace", failing)
    with pytest.raises(OutputError, match="No space left"):
        write(tmp_path / "out", "new")
    monkeypatch.undo()
    assert (tmp_path / "out" / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_kill_between_the_renames_loses_nothing(tmp_path):
    write(tmp_path / "out", "old")
    (tmp_path / "out").rename(tmp_path / ".out.before")
    recover(tmp_path / "out")
    assert (tmp_path / "out" / "file").read_text() == "old"
    recover(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_safetensors_raises_of_a_full_disk_is_an_error_of_ours(tmp_path):
    from safetensors import SafetensorError

    with pytest.raises(OutputError, match="No space") as caught, whole_file(tmp_path / "file", "Free some space."):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert caught.value.fix == "Free some space."
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "Free some space"),
        (PermissionError(errno.EACCES, "Permission denied"), "can be written to"),
        (OSError(errno.EROFS, "Read-only file system"), "can be written to"),
        (OSError("Unsupported Arrow array type string_view"), "Mend what the message says"),
    ],
)
def test_space_is_asked_for_where_the_disk_is_full_and_nowhere_else(tmp_path, error, words):
    for writing in (
        whole_file(tmp_path / "file", "Free some space."),
        whole_folder(tmp_path / "folder", "The selection"),
    ):
        with pytest.raises(OutputError) as caught, writing:
            raise error
        assert words in caught.value.fix
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path, is_there):
    place = tmp_path / "disk" / "out"
    if is_there:
        place.mkdir(parents=True)
    (tmp_path / "link").symlink_to(place, target_is_directory=True)
    for text in ("one", "two"):
        write(tmp_path / "link", text)
        assert (tmp_path / "link").is_symlink()
        assert (place / "file").read_text() == text
    (tmp_path / "kept").symlink_to(place / "file")
    with whole_file(tmp_path / "kept", "Free some space.") as part:
        part.write_text("three")
    assert (tmp_path / "kept").is_symlink()
    assert (place / "file").read_text() == "three"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "kept", "link"]
    assert [path.name for path in place.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["x" * 300, "x" * 250, "ü" * 120, "a\0b", "\ud800"])
def test_a_name_that_no_file_system_takes_is_refused(tmp_path, name):
    place = tmp_path / name
    for attempt in (
        lambda: check_name(place),
        lambda: write(place, "one"),
        lambda: whole_file(place, "").__enter__(),
        lambda: check_output(place),
        lambda: check_rows_output(place.with_name(f"{name}.csv")),
        lambda: check_list_file(place.with_name(f"{name}.csv")),
        lambda: check_new_rows(place),
        lambda: Selection.load_from_disk(place),
    ):
        with pytest.raises(OutputError, match=r"Choose (a shorter|another) name") as caught:
            attempt()
        assert len(caught.value.what) < 120
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("argument", ["resume_dir", "cache_dir"])
def test_a_folder_that_cannot_be_is_refused_by_its_argument(tmp_path, argument):
    for name in ("x" * 300, "a\0b"):
        with pytest.raises(OutputError, match=rf"\[{argument}\]"):
            SageSelector(vit(), **{argument: tmp_path / name})
    with pytest.raises(ConfigError, match=rf"{argument} is a int \[{argument}\]"):
        SageSelector(vit(), **{argument: 5})
    with pytest.raises(OutputError, match=r"\[cache_dir\]"):
        warm_up(vit(), image_rows(20), steps=1, cache_dir=tmp_path / "a\0b")


def test_a_warm_up_is_kept_in_a_folder_that_text_names(tmp_path):
    assert warm_up(vit(), image_rows(20), steps=1, cache_dir=str(tmp_path)).file.parent == tmp_path


def test_a_long_name_that_can_be_written_is_taken(tmp_path):
    write(tmp_path / ("x" * 220), "one")
    check_output(tmp_path / ("y" * 220))
    check_name(tmp_path / ".." / "z" / "")
    check_name(Path("/"))
