"""The model card's section on how the training rows were chosen, from a packaged template."""

from __future__ import annotations

import logging
import re
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from datasets import Dataset
from huggingface_hub import ModelCard, ModelCardData

from .pictures import save_scores
from .selection import Selection
from .training_args import SageArguments

logger = logging.getLogger(__name__)

TAGS = ("sage", "data-selection")
PICTURE = "sage_selection.png"
# Groups that the table lists, the largest.
_LISTED_GROUPS = 20


def add_selection(
    folder: Path,
    selection: Selection,
    dataset: Dataset,
    args: SageArguments,
    selections: int,
    dataset_name: str | list[str] | None = None,
) -> ModelCard:
    """Adds to the README.md in a folder how the rows were chosen, and puts a picture beside it.

    Args:
        folder: Holds a model card.
        selection: The last one of the training.
        dataset: What was selected from.
        args: The training's settings.
        selections: How often rows were chosen.
        dataset_name: What to call the dataset; its own name by default.

    Returns:
        The card as written.
    """
    path = folder / "README.md"
    card = ModelCard.load(path)
    picture = PICTURE if save_scores(selection, folder / PICTURE) else None
    names = [dataset_name] if isinstance(dataset_name, str) else dataset_name
    called = _cell(", ".join(names)) if names else _name(dataset)
    told = facts(selection, called, args, selections, picture)
    card = render(card.data.to_dict(), card.text.strip(), told)
    card.save(path)
    return card


def render(card_data: dict[str, Any], trainer_card: str, told: dict[str, Any]) -> ModelCard:
    """The whole card.

    Args:
        card_data: The metadata of the Trainer's card; tags are added.
        trainer_card: The Trainer's card without metadata.
        told: As `facts` gives it.
    """
    tags = list(dict.fromkeys([*(card_data.get("tags") or []), *TAGS]))
    with as_file(files("sage_hf") / "templates" / "model_card.md") as template:
        return ModelCard.from_template(
            ModelCardData(**{**card_data, "tags": tags}),
            template_path=str(template),
            trainer_card=trainer_card,
            **told,
        )


def facts(
    selection: Selection, dataset_name: str, args: SageArguments, selections: int, picture: str | None
) -> dict[str, Any]:
    """What the card tells of a selection, as JSON-ready values."""
    from . import __version__  # here, because the package imports this module before it has one

    stats, config = selection.stats, selection.config
    groups = sorted(stats["groups"], key=lambda group: -group["rows"])
    listed = sorted(groups[:_LISTED_GROUPS], key=stats["groups"].index)
    targets = config["target_modules"]
    return {
        "sage_version": __version__,
        "dataset_name": dataset_name,
        "dataset_fingerprint": selection.source_fingerprint,
        "rows": stats["rows"],
        "kept": len(selection),
        "set_aside": stats["set_aside"],
        "budget": f"fraction {config['fraction']:g}"
        if config["fraction"]
        else f"{config['num_examples']:,} asked for",
        "strategy": config["strategy"],
        "group_by": stats["group_by"],
        "balance": config["balance"],
        "warmup_epochs": args.sage_warmup_epochs,
        "refresh_epochs": args.sage_refresh_epochs,
        "selections": selections,
        "trained_steps": stats["trained_steps"],
        "trained_epochs": stats["trained_epochs"],
        "model_fingerprint": stats["model_fingerprint"],
        "target_weights": stats["target_weights"],
        "target_modules": targets if isinstance(targets, str) else ", ".join(targets),
        "row_width": stats["row_width"],
        "sketch_size": stats["sketch_size"],
        "energy": stats["energy"],
        "error_share": stats["error_bound"] / stats["squared_norm"],
        "mean_score": stats["mean_score"],
        "mean_score_kept": stats["mean_score_kept"],
        "seed": config["seed"],
        "groups": [
            {
                **group,
                "name": _cell(group["name"]),
                "mean_score": _number(group["mean_score"]),
                "mean_score_kept": _number(group["mean_score_kept"]),
            }
            for group in listed
        ],
        "more_groups": len(groups) - len(listed),
        "picture": picture,
    }


def _name(dataset: Dataset) -> str:
    """What the dataset calls itself."""
    info = dataset.info
    name = info.dataset_name or info.builder_name
    if not name:
        return "a dataset made in memory"
    parts = [part for part in (info.config_name, str(dataset.split) if dataset.split else None) if part]
    return f"{_cell(name)} ({_cell(', '.join(parts))})" if parts else _cell(name)


def _cell(text: str) -> str:
    """Text that cannot break out of a table's cell, nor become markup."""
    return re.sub(r"([\\|`*_<>\[\]])", r"\\\1", " ".join(text.split())) or "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"
