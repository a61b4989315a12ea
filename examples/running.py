"""What the training examples share: reading arguments, spoiling labels, and the end of a run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from rich.console import Console
from transformers import HfArgumentParser, Trainer

from sage_hf.selection.report import summary


def parse(kinds: Sequence[type], offline: Mapping[str, Any]) -> tuple[Any, ...]:
    """Arguments from the shell, or from a YAML or JSON file when that is all there is.

    Args:
        kinds: Dataclasses of arguments.
        offline: Defaults for a run without --dataset_name, on data and a model that need no network.
    """
    parser = HfArgumentParser(kinds)
    words = sys.argv[1:]
    if len(words) == 1 and words[0].endswith((".yaml", ".yml")):
        return parser.parse_yaml_file(words[0])
    if len(words) == 1 and words[0].endswith(".json"):
        return parser.parse_json_file(words[0])
    if not any(word.partition("=")[0] == "--dataset_name" for word in words):
        parser.set_defaults(**offline)
    return parser.parse_args_into_dataclasses()


def with_wrong_labels(dataset: Dataset, share: float, seed: int = 0) -> Dataset:
    """A share of the rows gets a random other label, so that there is something to find."""
    if share == 0:
        return dataset
    rng = np.random.default_rng(seed)
    labels = np.array(dataset["label"])
    wrong = rng.permutation(len(labels))[: round(share * len(labels))]
    classes = dataset.features["label"].num_classes
    labels[wrong] = (labels[wrong] + rng.integers(1, classes, len(wrong))) % classes
    feature = dataset.features["label"]
    return dataset.remove_columns("label").add_column("label", labels.tolist(), feature=feature)


def accuracy(prediction: Any) -> dict[str, float]:
    """`compute_metrics` of a classifier, in [0, 1]."""
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    return {"accuracy": float((logits.argmax(-1) == prediction.label_ids).mean())}


def finish(trainer: Trainer, **card: Any) -> None:
    """Evaluates, saves the model and its card, pushes both if asked, and prints what was kept."""
    metrics = trainer.evaluate()
    trainer.save_model()
    if trainer.args.push_to_hub:
        trainer.push_to_hub(**card)
    else:
        trainer.create_model_card(**card)
    if trainer.is_world_process_zero():
        console = Console()
        if trainer.selection is not None:
            console.print(summary(trainer.selection))
        console.print({name: round(value, 4) for name, value in metrics.items()})
        console.print(f"Model, card and picture are in {trainer.args.output_dir}.")
    # Processes on gloo now and then abort without this, and now and then hang at the exit if a wrapped model still
    # holds on to the process group (pytorch issue 56297).
    trainer.model_wrapped = trainer.model
    trainer.accelerator.free_memory()
    trainer.accelerator.end_training()
