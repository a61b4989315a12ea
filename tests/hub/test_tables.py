"""Rows as files that other programs read."""

import datetime
import json
import math

import pytest
from datasets import Dataset, Features, List, Value

from sage_hf.errors import OutputError
from sage_hf.hub.tables import write_table


def test_numbers_are_written_to_the_last_digit_and_what_json_lacks_is_null(tmp_path):
    values = [1 / 3, math.nan, -math.inf, None]
    rows = Dataset.from_dict({"number": values, "list": [[value] for value in values]})
    write_table(rows, tmp_path / "rows.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [line["number"] for line in lines] == [1 / 3, None, None, None]
    assert [line["list"] for line in lines] == [[1 / 3], [None], [None], [None]]


def test_a_csv_keeps_whole_numbers_whole_beside_nulls_and_dates_readable(tmp_path):
    features = Features({"count": Value("int64"), "day": Value("timestamp[s]"), "tags": List(Value("string"))})
    day = datetime.datetime(2024, 5, 1)
    rows = Dataset.from_dict({"count": [3, None], "day": [day, None], "tags": [["a, b"], None]}, features=features)
    write_table(rows, tmp_path / "rows.csv")
    head, first, second = (tmp_path / "rows.csv").read_text().splitlines()
    assert head == '"count","day","tags"'
    assert first.startswith("3,2024-05-01") and first.endswith('"[""a, b""]"')
    assert second == ",,"


def test_more_rows_than_are_written_at_a_time_are_all_there(tmp_path):
    rows = Dataset.from_dict({"number": list(range(2500)), "tags": [["a"]] * 2500})
    for ending in ("csv", "jsonl"):
        write_table(rows.select(range(2499, -1, -1)), tmp_path / f"rows.{ending}")
        lines = (tmp_path / f"rows.{ending}").read_text().splitlines()
        assert len(lines) == 2500 + (ending == "csv") and "2499" in lines[ending == "csv"]


def test_a_file_that_cannot_be_written_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="file"):
        write_table(Dataset.from_dict({"a": [1]}), tmp_path / "file" / "rows.csv")
