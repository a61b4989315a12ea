"""Short trainings for the tests: arguments, a Trainer that says nothing, and what can be compared afterwards."""

import torch
from transformers import PrinterCallback, TrainingArguments

from sage_hf import SageTrainer, SageTrainingArguments

QUIET = {
    "num_train_epochs": 4,
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-2,
    "use_cpu": True,
    "report_to": [],
    "logging_steps": 1,
    "disable_tqdm": True,
    "save_strategy": "no",
}


def plain_args(folder, **changes):
    return TrainingArguments(str(folder), **{**QUIET, **changes})


def sage_args(folder, **changes):
    return SageTrainingArguments(
        str(folder), **{**QUIET, "sage_strategy": "agreement", "sage_fraction": 0.4, **changes}
    )


class Recorder:
    """A collator that remembers which rows it was given, by their column `row` or their tokens."""

    def __init__(self, collator):
        self.collator = collator
        self.batches = []

    def __call__(self, features):
        self.batches.append([feature.pop("row") for feature in features])
        return self.collator(features)


def make(model, args, rows, trainer_class=SageTrainer, **others):
    trainer = trainer_class(model=model, args=args, train_dataset=rows, **others)
    trainer.remove_callback(PrinterCallback)
    return trainer


def train(model, args, rows, trainer_class=SageTrainer, resume=None, **others):
    trainer = make(model, args, rows, trainer_class, **others)
    trainer.train(resume_from_checkpoint=resume if resume is None or resume is True else str(resume))
    return trainer


def weights(model):
    return torch.cat([parameter.detach().flatten().double() for parameter in model.parameters()])


def difference(one, other):
    """The largest difference between two models' weights."""
    return float((weights(one) - weights(other)).abs().max())


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def selection_logs(trainer):
    return [entry for entry in trainer.state.log_history if "sage_rows_kept" in entry]
