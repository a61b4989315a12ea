"""Rows as a file that other programs read: csv, JSON lines or parquet."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
from datasets import Dataset, Features, Value
from datasets.table import embed_table_storage

from ..utils.files import whole_file
from .held import check_files, check_parquet

_BATCH = 1000


def write_table(rows: Dataset, place: Path) -> None:
    """Writes rows to a file, of the kind that its ending names, whole or not at all.

    csv: text in quotes, nested columns as JSON. JSON lines: UTF-8, as a person reads it. parquet: images and sounds
    in the file itself.

    Raises:
        OutputError: The file cannot be written.
        DatasetError: parquet cannot hold a column, or a row names a file of another kind than its column.
    """
    rows = rows.with_format(None)
    if place.suffix == ".parquet":
        check_parquet(rows.features, place.name)
        check_files(rows)
    with whole_file(place.absolute(), "Free some space and start again.") as part:
        if place.suffix == ".csv":
            _write_csv(rows, part)
        elif place.suffix == ".parquet":
            if any(map(is_media, rows.features.values())):
                # As a push does: else the file would name paths of this machine, and hold no image.
                rows = rows.with_format("arrow").map(embed_table_storage, batched=True, batch_size=100)
            rows.with_format(None).to_parquet(str(part))
        else:
            _write_lines(rows, part)


def is_media(feature: Any) -> bool:
    """Whether a column holds images, sounds or other files: as bytes, a path or both."""
    kind = getattr(feature, "pa_type", None)
    if kind is not None and pa.types.is_struct(kind):
        return {"bytes", "path"} <= {field.name for field in kind}
    return isinstance(feature, dict) and set(feature) == {"bytes", "path"}  # not decoded, as pandas hands them on


def is_nested(feature: Any) -> bool:
    """Whether a column holds lists or dictionaries."""
    return not isinstance(feature, Value) and pa.types.is_nested(_stored_as(feature))


def holds_bytes(feature: Any) -> bool:
    """Whether a column holds bytes, such as those of images, at any depth."""
    return "binary" in str(_stored_as(feature))


def _stored_as(feature: Any) -> pa.DataType:
    return Features({"it": feature}).arrow_schema.field("it").type


def _write_lines(rows: Dataset, part: Path) -> None:
    # pandas would round numbers to ten digits.
    with part.open("w", encoding="utf-8") as file:
        for batch in rows.with_format("arrow").iter(_BATCH):
            file.writelines(f"{_as_json(row)}\n" for row in batch.to_pylist())


def _write_csv(rows: Dataset, part: Path) -> None:
    nested = {name for name, feature in rows.features.items() if is_nested(feature)}
    # Of views on text, pyarrow's writer knows nothing.
    texts = {name for name, feature in rows.features.items() if getattr(feature, "dtype", "") == "string_view"}
    schema = pa.schema(
        pa.field(field.name, pa.string() if field.name in nested | texts else field.type)
        for field in rows.features.arrow_schema
    )
    # pandas would write whole numbers beside nulls as fractions, and leave a lone carriage return without quotes.
    with pyarrow.csv.CSVWriter(str(part), schema) as writer:
        for batch in rows.with_format("arrow").iter(_BATCH):
            columns = [
                pa.array(
                    [None if value is None else _as_json(value) for value in batch[name].to_pylist()], pa.string()
                )
                if name in nested
                else batch[name].cast(schema.field(name).type)
                for name in rows.column_names
            ]
            writer.write_table(pa.table(columns, schema=schema))


def _as_json(value: Any) -> str:
    """JSON as others read it: numbers that are not finite are null, dates are text."""
    try:
        return json.dumps(value, ensure_ascii=False, default=_as_text, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, default=_as_text)


def _as_text(value: Any) -> str:
    return str(value.isoformat() if hasattr(value, "isoformat") else value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
