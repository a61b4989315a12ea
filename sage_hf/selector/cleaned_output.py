"""Writes a dataset whose labels were corrected, with a card that tells how."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCardData

from ..data.classes import names_of
from ..hub.dataset_card import size_category
from ..hub.files import TABLE_WRITERS
from ..hub.held import save_checked
from ..hub.markdown import Markdown, cell, dataset_link, fill, quoted
from ..hub.paths import check_new_rows
from ..hub.provenance import describe_origin
from ..hub.row_files import check_cells, check_no_bytes, with_paths
from ..hub.tables import write_table
from ..utils.files import whole_file, whole_folder
from .cleaning import Cleaned

# Classes, and pairs of them, that a card lists: the most frequent.
_LISTED = 20
_BUILDERS = {".csv": "csv", ".parquet": "parquet"}


def save_cleaned(
    cleaned: Cleaned, path: str | os.PathLike[str], overwrite: bool = False, source_name: str | None = None
) -> Path:
    """Writes the rows to a folder as `save_to_disk` does, or to a file by its ending, with a card.

    Args:
        cleaned: What was done.
        path: The folder, whose card is README.md; or the file `name.csv`, `.jsonl` or `.parquet`, whose card is
            `name.README.md` beside it.
        overwrite: Whether a file or a saved dataset that is there is replaced.
        source_name: What the source is called, where it has no name of its own.

    Returns:
        Where the card is.

    Raises:
        OutputError: Something is there, nothing can be written there, or a file of this kind cannot hold the columns.
    """
    place = check_new_rows(path, overwrite)
    rows = cleaned.dataset.with_format(None)
    if place.suffix in (".csv", ".json", ".jsonl"):
        check_no_bytes(place, rows.features)
        if place.suffix == ".csv":
            check_cells(place, rows.features)
        rows = with_paths(rows, place)
    card = cleaned_card(cleaned, place, source_name)
    if place.suffix in TABLE_WRITERS:
        write_table(rows, place)
        beside = place.with_name(f"{place.stem}.README.md")
        with whole_file(beside, "Free some space and start again.") as part:
            part.write_text(card, encoding="utf-8")
        return beside
    place = place.absolute()  # datasets would take a:/b for an address
    with whole_folder(place, "The rows") as working:
        save_checked(rows, working)
        (working / "README.md").write_text(card, encoding="utf-8")
    return place / "README.md"


def cleaned_card(cleaned: Cleaned, place: Path, source_name: str | None = None) -> str:
    """The card: what was done with how many rows, of what.

    Args:
        cleaned: What was done.
        place: Where the rows go; of it, only the last name is told.
        source_name: What the source is called, where it has no name of its own.
    """
    origin = describe_origin(cleaned.source)
    source = origin["source"]
    name = source["id"] or source_name or source["name"] or "A dataset"
    relabelled, more_relabelled = _most(cleaned.relabelled)
    dropped, more_dropped = _most(cleaned.dropped)
    data = DatasetCardData(
        pretty_name=f"{name.split('/')[-1]}, labels corrected",
        tags=["label-issues"],
        size_categories=[size_category(len(cleaned.dataset))],
        source_datasets=[source["id"]] if source["id"] else None,
    )
    values: dict[str, Any] = {
        **origin,
        "metadata": Markdown(data.to_yaml()),
        "name": name.split("/")[-1],
        "source_link": dataset_link(name) if source["id"] else cell(name),
        "load": _load(place),
        "rows_before": len(cleaned.source),
        "rows_now": len(cleaned.dataset),
        "listed": cleaned.listed,
        "kept": cleaned.kept,
        "relabelled_rows": cleaned.relabelled.total(),
        "dropped_rows": cleaned.dropped.total(),
        "relabelled": [(*pair, rows) for pair, rows in relabelled],
        "more_relabelled": more_relabelled,
        "dropped": dropped,
        "more_dropped": more_dropped,
        "column": cleaned.column,
        "classes": names_of(cleaned.source.features[cleaned.column]),
    }
    return fill("cleaned.md", values)


def _most(counts: Counter[Any]) -> tuple[list[tuple[Any, int]], int]:
    """The most frequent, by name where they are as frequent, and how many others there are."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ranked[:_LISTED], len(ranked[_LISTED:])


def _load(place: Path) -> Markdown:
    """Code that loads the rows."""
    if place.suffix not in (".csv", ".json", ".jsonl", ".parquet"):
        return Markdown(f"from datasets import load_from_disk\n\nrows = load_from_disk({quoted(place.name)})")
    builder = _BUILDERS.get(place.suffix, "json")
    call = f'load_dataset("{builder}", data_files={quoted(place.name)}, split="train")'
    return Markdown(f"from datasets import load_dataset\n\nrows = {call}")
