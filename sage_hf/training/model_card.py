"""The model card's section on how the training rows were chosen, from a packaged template."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers.modelcard import TASK_MAPPING

from ..hub.cards import PAPER, TAGS, selection_facts
from ..hub.markdown import fill
from ..hub.pictures import save_pictures
from ..hub.provenance import describe_dataset
from ..selection.selection import Selection
from .arguments import SageArguments

logger = logging.getLogger(__name__)

# Folder of the pictures beside the card.
PICTURES_FOLDER = "sage"
# Numbers of an evaluation that measure the machine.
_NO_METRICS = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")


@dataclass(frozen=True)
class Training:
    """What the card tells of a training besides its last selection.

    Attributes:
        args: The training's settings.
        selections: How often rows were chosen.
        model_class: Name of the model's class, without an adapter around it.
        log_history: The trainer's.
        eval_dataset: What was evaluated on, if it is a dataset.
        dataset_name: What to call the training dataset; its own name by default.
        dataset_repo: Where the kept rows were pushed to.
        task: As the Hub calls it; the model's class tells by default.
    """

    args: SageArguments
    selections: int
    model_class: str
    log_history: list[dict[str, Any]]
    eval_dataset: Any = None
    dataset_name: str | None = None
    dataset_repo: str | None = None
    task: str | None = None


def describe_training(trainer: Any, arguments: dict[str, Any], dataset_repo: str | None) -> Training:
    """What a trainer knows of its training, and the keywords of its `create_model_card` say."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    # Trainer's word for it, and trl's.
    names, tasks = arguments.get("dataset") or arguments.get("dataset_name"), arguments.get("tasks")
    return Training(
        args=trainer.args,
        selections=len(trainer.selections),
        model_class=type(model.get_base_model() if hasattr(model, "get_base_model") else model).__name__,
        log_history=trainer.state.log_history,
        eval_dataset=trainer.eval_dataset,
        dataset_name=names if isinstance(names, str) else ", ".join(names or []) or None,
        dataset_repo=dataset_repo,
        task=tasks[0] if tasks and not isinstance(tasks, str) else tasks or None,
    )


def add_selection(folder: Path, selection: Selection, dataset: Dataset, training: Training) -> None:
    """Adds to the model card in a folder how the rows of a dataset were chosen, and puts pictures beside it."""
    path = folder / "README.md"
    card = ModelCard.load(path)
    pictures = save_pictures(selection.seen(), folder / PICTURES_FOLDER)
    name = training.dataset_name or _name(dataset)
    values = facts(selection, name, training, pictures)
    render(metadata(card, dataset, name, training), trainer_text(card), values).save(path)


def trainer_text(card: ModelCard) -> str:
    """The Trainer's card without its metadata."""
    # transformers takes a model without a name for a fine-tuned one, and links to nothing.
    return card.text.strip().replace("is a fine-tuned version of [](https://huggingface.co/) on", "was trained on")


def metadata(card: ModelCard, dataset: Dataset, dataset_name: str, training: Training) -> dict[str, Any]:
    """The Trainer's card's metadata with results, where it has none, and the datasets' names."""
    data = card.data.to_dict()
    held_results = any(index.get("results") for index in data.get("model-index") or [])
    results = [] if held_results else eval_results(training, dataset_name)
    if results:
        data.pop("model-index", None)  # Trainer's is empty where it does not know what the dataset is called
        data |= {"model_name": _model_name(card), "eval_results": results}
    held = data.get("datasets") or []
    names = [*([held] if isinstance(held, str) else held), training.dataset_repo, describe_dataset(dataset)["id"]]
    if any(names):
        data["datasets"] = list(dict.fromkeys(filter(None, names)))
    return ModelCardData(**data).to_dict()


def render(card_data: dict[str, Any], trainer_card: str, values: dict[str, Any]) -> ModelCard:
    """The whole card, of the Trainer's metadata (tags are added) and text, and the values of `facts`."""
    tags = list(dict.fromkeys([*(card_data.get("tags") or []), *TAGS]))
    section = fill("model_card.md", {**values, "paper": PAPER, "section": fill("selection.md", values)})
    data = ModelCardData(**{**card_data, "tags": tags})
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{trainer_card}\n\n{section.strip()}\n")


def facts(selection: Selection, dataset_name: str, training: Training, pictures: list[str]) -> dict[str, Any]:
    """What the section tells, as JSON-ready values."""
    stats, args = selection.stats, training.args
    return {
        **selection_facts(stats, selection.config, pictures, PICTURES_FOLDER),
        "dataset_name": dataset_name,
        "dataset_repo": training.dataset_repo,
        "dataset_fingerprint": selection.source_fingerprint,
        "warmup_epochs": args.sage_warmup_epochs,
        "refresh_epochs": args.sage_refresh_epochs,
        "selections": training.selections,
        "trained_steps": stats.trained_steps,
        "trained_epochs": stats.trained_epochs,
    }


def eval_results(training: Training, dataset_name: str) -> list[EvalResult]:
    """The last evaluation's numbers, as the Hub's leaderboards read them; none without an evaluation or a known task.

    The dataset's name stands where the evaluation's has none.
    """
    evaluations = [entry for entry in training.log_history if any(name.startswith("eval_") for name in entry)]
    metrics = {
        metric: value
        for name, value in (evaluations[-1] if evaluations else {}).items()
        if name.startswith("eval_")
        and isinstance(value, float)
        and (metric := name.removeprefix("eval_")) not in _NO_METRICS
    }
    known = (task for task, classes in TASK_MAPPING.items() if training.model_class in classes.values())
    task = training.task or next(known, None)
    if task is None:
        logger.info("No evaluation results in the card's metadata: the task of %s is not known.", training.model_class)
        return []
    source = describe_dataset(training.eval_dataset) if isinstance(training.eval_dataset, Dataset) else {}
    return [
        EvalResult(
            task_type=task,
            dataset_type=source.get("id") or "unknown",
            dataset_name=source.get("id") or source.get("name") or dataset_name,
            dataset_config=source.get("config") if source.get("id") else None,
            dataset_split=source.get("split"),
            dataset_revision=source.get("revision"),
            metric_type=name,
            metric_name=name.replace("_", " ").capitalize(),
            metric_value=value,
        )
        for name, value in metrics.items()
    ]


def _model_name(card: ModelCard) -> str:
    """As Trainer's metadata or heading has it; the Hub wants one beside results."""
    heading = next((line[2:] for line in card.text.splitlines() if line.startswith("# ")), "")
    return str(card.data.get("model_name") or heading.strip() or "model")


def _name(dataset: Dataset) -> str:
    """What the dataset calls itself."""
    source = describe_dataset(dataset)
    name = source["id"] or source["name"]
    if not name:
        return "a dataset made in memory"
    parts = [part for part in (source["config"], source["split"]) if part]
    return f"{name} ({', '.join(parts)})" if parts else str(name)
