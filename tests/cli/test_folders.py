"""`sage-hf choose` and `show`: what is done with a selection's folder later."""

import io
import json
import shutil

import pytest
from datasets import load_from_disk
from PIL import Image
from rich.console import Console

from sage_hf import Selection
from sage_hf.cli.show import table_of, value_text
from sage_hf.selection.rows import ShownRow

from .test_main import folder, reviews, run  # noqa: F401  # a fixture

ABOUT = ["--task", "sequence-classification", "--warmup-steps", "1", "--sketch-size", "8", "--batch-size", "8"]
ABOUT += ["--shard-size", "16", "--device", "cpu"]


def words(result):
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):  # noqa: F811
    """A selection of a tenth of reviews with columns of other names, and its data."""
    root = tmp_path_factory.mktemp("made")
    data = reviews(root / "reviews.csv")
    data.write_text(data.read_text().replace("text,label", "review,sentiment"))
    mapping = ["--column-mapping", "review=text", "--label-column", "sentiment"]
    result = run("select", folder / "bert", data, "-o", root / "tenth", "--fraction", "0.1", *mapping, *ABOUT)
    assert result.exit_code == 0, result.output
    assert "0.1 MB are signals of all rows" in words(result)
    return root


def test_other_rows_are_chosen_in_the_shell_without_the_model_as_a_new_selection_would(made, folder, tmp_path):  # noqa: F811
    mapping = ["--column-mapping", "review=text", "--label-column", "sentiment"]
    for more in (["--fraction", "0.3"], ["--num-examples", "9", "--strategy", "herding", "--balance", "equal"]):
        new, chosen = tmp_path / f"new{more[1]}", tmp_path / f"chosen{more[1]}"
        result = run("select", folder / "bert", made / "reviews.csv", "-o", new, *more, *mapping, *ABOUT)
        assert result.exit_code == 0, result.output
        result = run("choose", made / "tenth", "-o", chosen, *more)
        assert result.exit_code == 0, result.output
        assert "Kept" in result.output and f"Written to {chosen}" in words(result).replace("- ", "-")
        one, other = load_from_disk(str(new)), load_from_disk(str(chosen))
        assert one.features == other.features and one[:] == other[:]
        assert Selection.load_from_disk(chosen).signals is not None


def test_other_rows_can_be_written_to_a_file(made, tmp_path):
    result = run("choose", made / "tenth", "--fraction", "0.3", "-o", tmp_path / "kept.csv")
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "kept.csv").read_text().splitlines()
    assert len(lines) == 23 and "sage_row" in lines[0] and "good" in "".join(lines)
    result = run("choose", made / "tenth", "--fraction", "0.3", "-o", tmp_path / "kept.txt")
    assert result.exit_code == 1 and ".csv" in words(result)


def test_rows_are_shown_with_their_text_and_label(made):
    for view, total in (("kept", 7), ("dropped", 65), ("highest", 72)):
        result = run("show", made / "tenth", "--rows", view, "--limit", 4)
        assert result.exit_code == 0, result.output
        assert f"4 of {total} rows." in result.output and "the cat number" in result.output
        assert max(map(len, result.output.splitlines())) <= 100
    result = run("show", made / "tenth", "--rows", "kept", "--group", "rare")
    assert "1 of 1 rows." in result.output and "rare" in result.output


def test_what_cannot_be_shown_is_told(made):
    result = run("show", made / "tenth", "--rows", "best")
    assert result.exit_code == 1 and "There is no view 'best'" in words(result)
    result = run("show", made / "tenth", "--group", "fine")
    assert result.exit_code == 1 and "Use one of bad, good, rare" in words(result)
    result = run("show", made / "no-such-folder")
    assert result.exit_code == 1 and "Traceback" not in result.output


def test_what_was_chosen_later_knows_its_rows_too(made, tmp_path):
    result = run("choose", made / "tenth", "-o", tmp_path / "third", "--fraction", "0.3")
    assert result.exit_code == 0, result.output
    shutil.copy(made / "reviews.csv", tmp_path / "moved.csv")
    more = ["--fraction", "0.2", "--dataset", tmp_path / "moved.csv"]
    result = run("choose", tmp_path / "third", "-o", tmp_path / "fifth", *more)
    assert result.exit_code == 0, result.output
    for name, file in (("third", made / "reviews.csv"), ("fifth", tmp_path / "moved.csv")):
        assert json.loads((tmp_path / name / "source.json").read_text())["dataset"] == str(file)
        result = run("show", tmp_path / name, "--rows", "dropped", "--limit", 2)
        assert result.exit_code == 0 and "the cat" in result.output


def test_rows_that_are_gone_are_asked_for_and_may_lie_elsewhere(made, tmp_path):
    shutil.copytree(made / "tenth", tmp_path / "tenth")
    noted = tmp_path / "tenth" / "source.json"
    values = json.loads(noted.read_text())
    noted.write_text(json.dumps({**values, "dataset": str(tmp_path / "gone.csv")}))
    result = run("show", tmp_path / "tenth", "--rows", "dropped")
    assert result.exit_code == 1 and "its line checksum" in words(result)
    del values["checksum"]  # as it says
    noted.write_text(json.dumps({**values, "dataset": str(tmp_path / "gone.csv")}))
    result = run("show", tmp_path / "tenth", "--rows", "dropped", "--limit", 2)
    assert result.exit_code == 0 and "Name it with --dataset" in words(result) and "the cat" not in result.output
    result = run("show", tmp_path / "tenth", "--limit", 2)
    assert "the cat" in result.output
    result = run("choose", tmp_path / "tenth", "--fraction", "0.2", "-o", tmp_path / "out")
    assert result.exit_code == 1 and "--dataset" in words(result) and not (tmp_path / "out").exists()
    result = run("show", tmp_path / "tenth", "--rows", "dropped", "--limit", 2, "--dataset", made / "reviews.csv")
    assert result.exit_code == 0 and "the cat" in result.output


def test_other_rows_than_those_that_were_selected_from_are_refused(made, tmp_path):
    other = made / "reviews.csv"
    (tmp_path / "other.csv").write_text(other.read_text().replace("cat", "dog"))
    result = run("choose", made / "tenth", "-o", tmp_path / "out", "--dataset", tmp_path / "other.csv")
    assert result.exit_code == 1 and "fingerprint" in words(result)


def test_a_damaged_folder_is_chosen_from_where_it_can_be_and_named_where_not(made, tmp_path):
    kept = tmp_path / "kept"
    shutil.copytree(made / "tenth", kept)

    def flip(name):
        (path,) = kept.glob(name)
        path.write_bytes(path.read_bytes()[:-20] + b"\7" + path.read_bytes()[-19:])

    flip("*.arrow")  # the original dataset is there
    assert run("choose", kept, "--fraction", "0.3", "-o", tmp_path / "half").exit_code == 0
    for name, told in (("signals.npy", "signals of the rows are damaged"), ("selection.json", "cannot be read")):
        flip(name)
        result = run("choose", kept, "--fraction", "0.3", "-o", tmp_path / "other")
        assert result.exit_code == 1 and told in words(result) and "Traceback" not in result.output
        assert not (tmp_path / "other").exists()


def test_a_file_of_rows_is_no_folder_of_a_selection_and_an_empty_view_says_so(made):
    result = run("show", made / "reviews.csv")
    assert result.exit_code == 1 and "A file holds the kept rows alone" in words(result)
    result = run("show", made / "tenth", "--rows", "set-aside")
    assert result.exit_code == 0 and result.output.strip() == "There are no rows to show: set-aside."


def test_long_texts_leave_numbers_and_labels_readable():
    rows = [
        ShownRow(number, "kept", 0.5, 1.0, "a", "politics", 0.75, "science", {"text": "a long text " * 90, "id": "x"})
        for number in range(1234, 1237)
    ]
    for width in (60, 80, 120):
        console = Console(width=width, file=io.StringIO())
        console.print(table_of(rows, width))
        told = console.file.getvalue()
        assert max(map(len, told.splitlines())) <= width
        assert told.count("1,234") == 1 and told.count("0.500") == 3 and told.count("politics") == 3
        assert told.count("science") == 3 and told.count("text: a") == 3


def test_an_image_is_told_with_its_folder():
    image = Image.new("L", (2, 2))
    assert value_text(image) == "image, 2 x 2"
    image.filename = "/data/eight/076.png"
    assert value_text(image) == "eight/076.png"


def test_signals_can_be_left_out(made, folder, tmp_path):  # noqa: F811
    result = run(
        "select", folder / "bert", folder / "labelled.json", "-o", tmp_path / "a", "--fraction", "0.5",
        "--no-keep-signals", *ABOUT,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert not list((tmp_path / "a").glob("signals*")) and "signals of all rows" not in words(result)
    result = run("choose", tmp_path / "a", "--fraction", "0.2", "-o", tmp_path / "b")
    assert result.exit_code == 1 and "store the signals" in words(result)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("a\n b", "a b"),
        ([1, 2, 3], "3 values"),
        ([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}], "user: Hi / assistant: Yes"),
        ({"array": [0.0] * 800, "sampling_rate": 400}, "sound, 2.0 s"),
        ({"a": 1, "b": "x"}, "a: 1, b: x"),
        (["a", "b"], "a / b"),
    ],
)
def test_a_value_is_shown_on_one_line(value, text):
    assert value_text(value) == text
