"""The dataset card of a selection: a section with its story, and metadata that the Hub can read.

The section stands between two comments that name the configuration. What else a card says, of other configurations or
by its owner's hand, stays as it is.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from ..config import SageConfig
from .cards import PAPER, TAGS, cell, fill, selection_facts

_HUB = "https://huggingface.co"
# What is carried over from the source's card.
_CARRIED = (
    *("license", "license_name", "license_link", "language", "multilinguality", "task_categories", "task_ids"),
    "annotations_creators",
)
_SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
_LONGEST_CITATION = 5000


def card_facts(
    stats: dict[str, Any],
    config: dict[str, Any],
    *,
    repo_id: str,
    config_name: str,
    split: str,
    splits: dict[str, int],
    source_card: DatasetCard | None,
    pictures: list[str],
    all_scores: bool = True,
    scores_only: bool = False,
    source_fingerprint: str | None = None,
    license: str | None = None,
) -> dict[str, Any]:
    """What the section tells, as JSON-ready values.

    Args:
        stats: Of the selection.
        config: Of the selection.
        repo_id: Where it is pushed to.
        config_name: The configuration of the repository.
        split: The split that holds the kept rows.
        splits: Split to number of rows, of all that are pushed.
        source_card: The card of the source, if it has one.
        pictures: Names of those that are pushed.
        all_scores: Whether the scores of rows that were not kept are pushed, too.
        scores_only: Whether the rows are not.
        source_fingerprint: The source dataset's.
        license: Of the pushed rows; the source's by default.
    """
    source, model = stats["source"], stats["model"]
    carried = carry(source_card)
    name = source["id"] or source["name"]
    short = (name or "A dataset").split("/")[-1]
    licenses = license or carried.get("license")
    given = {name: value for name, value in config.items() if value != _DEFAULTS.get(name)}
    return {
        **selection_facts(stats, config, pictures, folder(config_name)),
        "repo_id": repo_id,
        "config_name": config_name,
        "name": f"{short}, chosen by SAGE",
        "title": f"{short}, {stats['kept']:,} rows chosen by SAGE",
        "paper": PAPER,
        "split": split,
        "splits": splits,
        "scores_only": scores_only,
        "all_scores": all_scores,
        "source": source,
        "source_link": _link(source["id"], f"{_HUB}/datasets") or cell(name or "a dataset made in memory"),
        "source_fingerprint": source_fingerprint,
        "source_digest": stats.get("source_digest"),
        "load_source": _load(source),
        "model": model,
        "model_link": _link(model["id"], _HUB) or f"a {cell(model['class'])} that was in memory",
        "trained_steps": stats.get("trained_steps"),
        "command": shlex.join(stats["command"]) if stats.get("command") else None,
        "settings": ", ".join(f"{name}={value!r}" for name, value in given.items()),
        "config": {name: str(value) for name, value in config.items()},
        "license": [licenses] if isinstance(licenses, str) else licenses,
        "license_carried": license is None,
        "citation": citation(source_card),
    }


_DEFAULTS = {each.name: each.default for each in fields(SageConfig)}


def folder(config_name: str) -> str:
    """Where a configuration's scores and pictures are in the repository."""
    return f"sage/{config_name}"


def render_section(told: dict[str, Any]) -> str:
    """The section, between its two comments."""
    return fill("dataset_card.md", {**told, "section": fill("selection.md", told)}).strip()


def metadata(told: dict[str, Any], source_card: DatasetCard | None) -> dict[str, Any]:
    """Card metadata as the Hub knows it."""
    rows = sum(told["splits"].values())
    data: dict[str, Any] = {
        "pretty_name": told["name"],
        "tags": list(TAGS),
        "size_categories": [size_category(rows)],
        **carry(source_card),
    }
    if told["source"]["id"]:
        data["source_datasets"] = [told["source"]["id"]]
    if told["license"]:
        data["license"] = told["license"] if len(told["license"]) > 1 else told["license"][0]
    if told["scores_only"]:
        data["viewer"] = False  # of a repository without rows
    return data


def merge(
    existing: DatasetCard | None, section: str, config_name: str, data: dict[str, Any], license: str | None = None
) -> DatasetCard:
    """A card with the section in it.

    Args:
        existing: The card that is there; what it says of its own stays, in its metadata, too.
        section: As `render_section` gives it.
        config_name: The configuration that the section is of.
        data: As `metadata` gives it.
        license: The one that was asked for; it replaces what is there.
    """
    held: dict[str, Any] = existing.data.to_dict() if existing is not None else {}
    merged = {**data, **held}
    # What this push knows better is told anew; lists are joined.
    merged["size_categories"] = data["size_categories"]
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
    found = re.search(r"^(#+)[^\n]*citation[^\n]*\n(.*?)(?=^#{1,6} |\Z)", source_card.text, re.I | re.M | re.S)
    text = found[2].strip() if found else ""
    if not text or "more information needed" in text.lower():
        return None
    return text if len(text) <= _LONGEST_CITATION else "(The citation is long: see the source's card.)"


def size_category(rows: int) -> str:
    """The Hub's word for a number of rows, such as "1K<n<10K"."""
    limits = [10**power for power in range(3, 13)]
    place = sum(rows >= limit for limit in limits)
    if place == 0:
        return f"n<{_SIZES[0]}"
    return f"n>{_SIZES[-1]}" if place == len(limits) else f"{_SIZES[place - 1]}<n<{_SIZES[place]}"


def _between(config_name: str) -> re.Pattern[str]:
    name = re.escape(config_name)
    return re.compile(rf"<!-- sage_hf: {name} -->.*?<!-- /sage_hf: {name} -->", re.S)


def _card(data: dict[str, Any], text: str) -> DatasetCard:
    block = DatasetCardData(ignore_metadata_errors=True, **data).to_yaml()
    return DatasetCard(f"---\n{block}\n---\n\n{text}\n", ignore_metadata_errors=True)


def _listed(value: str | list[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _link(hub_id: str | None, place: str) -> str | None:
    return f"[{cell(hub_id)}]({place}/{hub_id})" if hub_id else None


def _load(source: dict[str, Any]) -> str:
    """Code that loads the source."""
    if not source["id"]:
        return "...  # the dataset that was selected from"
    config = source["config"] if source["config"] != "default" else None
    named = {"name": config, "split": source["split"], "revision": source["revision"]}
    given = "".join(f', {name}="{value}"' for name, value in named.items() if value)
    return f'load_dataset("{source["id"]}"{given})'
