"""The dataset card of a selection: a section with its story, and metadata that the Hub can read.

The section stands between two comments that name the configuration. What else a card says, of other configurations or
by its owner's hand, stays as it is.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, fields
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from ..config import SageConfig
from ..data.stats import SelectionStats
from .cards import PAPER, TAGS, selection_facts
from .markdown import HUB, Markdown, cell, fill, link, quoted

# What is carried over from the source's card.
_CARRIED = (
    *("license", "license_name", "license_link", "language", "multilinguality", "task_categories", "task_ids"),
    "annotations_creators",
)
_SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
_LONGEST_CITATION = 5000


@dataclass(frozen=True)
class Pushed:
    """What a push sends, and where to.

    Attributes:
        repo_id: The repository.
        config_name: The configuration in it.
        split: The split that holds the kept rows.
        splits: Number of rows of every split.
        pictures: Names of the pictures.
        all_scores: Whether the scores of rows that were not kept are sent, too.
        scores_only: Whether the rows are not sent.
        source_fingerprint: Fingerprint of the source dataset.
    """

    repo_id: str
    config_name: str
    split: str
    splits: dict[str, int]
    pictures: list[str]
    all_scores: bool = True
    scores_only: bool = False
    source_fingerprint: str | None = None


def card_facts(
    stats: SelectionStats,
    config: SageConfig,
    pushed: Pushed,
    source_card: DatasetCard | None = None,
    license: str | None = None,
) -> dict[str, Any]:
    """Values of the section, ready for JSON.

    Args:
        stats: Statistics of the selection.
        config: Its settings.
        pushed: What is sent.
        source_card: The card of the source, if it has one.
        license: Licence of the pushed rows; the source's by default.
    """
    source, model, settings = stats.source, stats.model, config.to_dict()
    carried = carry(source_card)
    name = source["id"] or source["name"]
    short = (name or "A dataset").split("/")[-1]
    licenses = license or carried.get("license")
    changed = {name: value for name, value in settings.items() if value != _DEFAULTS.get(name)}
    return {
        **vars(pushed),
        **selection_facts(stats, config, pushed.pictures, folder(pushed.config_name)),
        "name": f"{short}, chosen by SAGE",
        "title": f"{short}, {stats.kept:,} rows chosen by SAGE",
        "paper": PAPER,
        "source": source,
        "source_link": _link(source["id"], f"{HUB}/datasets") or cell(name or "a dataset made in memory"),
        "source_digest": stats.source_digest,
        "load_source": _load(source),
        "model": model,
        "model_link": _link(model["id"], HUB) or Markdown(f"a {cell(model['class'])} that was in memory"),
        "trained_steps": stats.trained_steps,
        "command": shlex.join(stats.command) if stats.command else None,
        "settings": ", ".join(f"{name}={value!r}" for name, value in changed.items()),
        "config": {name: str(value) for name, value in settings.items()},
        "license": [licenses] if isinstance(licenses, str) else licenses,
        "license_carried": license is None,
        "citation": citation(source_card),
    }


_DEFAULTS = {each.name: each.default for each in fields(SageConfig)}


def folder(config_name: str) -> str:
    """Where a configuration's scores and pictures are in the repository."""
    return f"sage/{config_name}"


def render_section(facts: dict[str, Any]) -> str:
    """The section, between its two comments."""
    return fill("dataset_card.md", {**facts, "section": fill("selection.md", facts)}).strip()


def metadata(facts: dict[str, Any], source_card: DatasetCard | None) -> dict[str, Any]:
    """Card metadata as the Hub knows it."""
    rows = sum(facts["splits"].values())
    data: dict[str, Any] = {
        "pretty_name": facts["name"],
        "tags": list(TAGS),
        "size_categories": [size_category(rows)],
        **carry(source_card),
    }
    if facts["source"]["id"]:
        data["source_datasets"] = [facts["source"]["id"]]
    if facts["license"]:
        data["license"] = facts["license"] if len(facts["license"]) > 1 else facts["license"][0]
    if facts["scores_only"]:
        data["viewer"] = False  # of a repository without rows
    return data


def merge(
    existing: DatasetCard | None, section: str, config_name: str, data: dict[str, Any], license: str | None = None
) -> DatasetCard:
    """A card with the section in it.

    Args:
        existing: The card that is there; what it says of its own stays, in its metadata, too.
        section: Section by `render_section`.
        config_name: Configuration that the section is of.
        data: Metadata by `metadata`.
        license: Licence that was asked for; it replaces what is there.
    """
    held: dict[str, Any] = existing.data.to_dict() if existing is not None else {}
    # What this push knows better is told anew; lists are joined.
    merged = {**data, **held, "size_categories": data["size_categories"]}
    if license is not None:
        merged["license"] = license
    for name in ("tags", "source_datasets"):
        merged[name] = list(dict.fromkeys([*_listed(held.get(name)), *_listed(data.get(name))]))
        if not merged[name]:
            del merged[name]
    if "configs" in held:
        merged.pop("viewer", None)
    text = existing.text.strip() if existing is not None else ""
    between = _between(config_name)
    text = between.sub(lambda _: section, text) if between.search(text) else f"{text}\n\n{section}".strip()
    return _card(merged, text)


def withdraw(existing: DatasetCard, config_name: str) -> DatasetCard | None:
    """The card without the section of a configuration; None where it has none."""
    text, count = _between(config_name).subn("", existing.text)
    return _card(existing.data.to_dict(), text.strip()) if count else None


def carry(source_card: DatasetCard | None) -> dict[str, Any]:
    """Of the source's metadata, what holds for a part of its rows, too."""
    held = source_card.data.to_dict() if source_card is not None else {}
    return {name: held[name] for name in _CARRIED if held.get(name)}


def citation(source_card: DatasetCard | None) -> str | None:
    """The section of the source's card on how to cite it, without its heading; where it is long, that it is there."""
    if source_card is None:
        return None
    match = re.search(r"^(#+)[^\n]*citation[^\n]*\n(.*?)(?=^#{1,6} |\Z)", source_card.text, re.I | re.M | re.S)
    text = match[2].strip() if match else ""
    if not text or "more information needed" in text.lower():
        return None
    return text if len(text) <= _LONGEST_CITATION else "(The citation is long: see the source's card.)"


def size_category(rows: int) -> str:
    """The Hub's word for a number of rows, such as "1K<n<10K"."""
    place = sum(rows >= 10**power for power in range(3, 13))
    if place == 0:
        return f"n<{_SIZES[0]}"
    return f"n>{_SIZES[-1]}" if place == len(_SIZES) else f"{_SIZES[place - 1]}<n<{_SIZES[place]}"


def _between(config_name: str) -> re.Pattern[str]:
    name = re.escape(config_name)
    return re.compile(rf"<!-- sage_hf: {name} -->.*?<!-- /sage_hf: {name} -->", re.S)


def _card(data: dict[str, Any], text: str) -> DatasetCard:
    block = DatasetCardData(ignore_metadata_errors=True, **data).to_yaml()
    return DatasetCard(f"---\n{block}\n---\n\n{text}\n", ignore_metadata_errors=True)


def _listed(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _link(hub_id: str | None, place: str) -> Markdown | None:
    return link(hub_id, f"{place}/{hub_id}") if hub_id else None


def _load(source: dict[str, Any]) -> Markdown:
    """Code that loads the source."""
    if not source["id"]:
        return Markdown("...  # the dataset that was selected from")
    config = source["config"] if source["config"] != "default" else None
    named = {"name": config, "split": source["split"], "revision": source["revision"]}
    options = "".join(f", {name}={quoted(value)}" for name, value in named.items() if value)
    return Markdown(f"load_dataset({quoted(source['id'])}{options})")
