"""`SageTrainingArguments`: TrainingArguments with the knobs of a selection."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from typing import Any

from transformers import TrainingArguments

from ..config import SageConfig
from ..errors import ConfigError, SageError
from ..utils.setting_text import from_text

_CONFIG_FIELDS = {each.name: each for each in fields(SageConfig)}
# Fields of SageConfig that a Trainer has its own way for: its collator encodes, and its batch size is named otherwise.
# Its dataloader has workers of its own. A model in training has no second selection to keep gradient rows for, and no
# target.
_NOT_HERE = {"text_columns", "max_length", "batch_size", "cache_gradients", "num_workers", "target_reduction"}


def _knob(name: str) -> Any:
    """A field with the default and the help of `SageConfig`'s."""
    each = _CONFIG_FIELDS[name]
    return field(default=each.default, metadata={"help": each.metadata["help"].replace("%", "%%")})


@dataclass
class SageArguments:
    """The knobs of a selection inside a training, to go in front of any class of training arguments.

    Selection is on when `sage_fraction` or `sage_num_examples` is set, and off otherwise. Fields without a word here
    are those of `SageConfig` with the prefix `sage_`, and the same defaults; text is read as `sage-hf select` reads it
    (`sage_projection="none"`, `sage_target_modules="query,value"`).

    Args:
        sage_warmup_epochs: Epochs over all rows before the first selection; a fraction of one is allowed. They count
            as epochs of the training, so there must be fewer of them than `num_train_epochs`.
        sage_refresh_epochs: Passes over a subset before the next subset is chosen, with the model at that point; 0
            chooses only once.
        sage_batch_size: Rows a forward pass while rows are scored, in each process; None takes
            `per_device_train_batch_size`. Does not change the scores. Fewer are taken where memory is not enough, and,
            with `auto_find_batch_size`, no more than the batch size that was found.
        sage_hub_dataset_id: Dataset repository that `trainer.push_to_hub()` pushes the kept rows to before the model,
            whose card then names it; None pushes the model alone, because rows may be private where a model is not.

    Raises:
        ConfigError: A knob has a value that cannot work, or the warm-up is not shorter than the training.
        BudgetError: The budget is out of range, or given twice.

    Example:
        >>> @dataclass
        ... class SageSFTConfig(SageArguments, SFTConfig):
        ...     pass
    """

    sage_fraction: float | None = _knob("fraction")
    sage_num_examples: int | None = _knob("num_examples")
    sage_warmup_epochs: float = field(
        default=1.0, metadata={"help": "Epochs over all rows before the first selection; fractions are allowed."}
    )
    sage_refresh_epochs: int = field(
        default=0, metadata={"help": "Passes over a subset before the next is chosen; 0 chooses once."}
    )
    sage_batch_size: int | None = field(
        default=None, metadata={"help": "Rows a forward pass of the scoring; per_device_train_batch_size by default."}
    )
    sage_hub_dataset_id: str | None = field(
        default=None, metadata={"help": "Where push_to_hub() also pushes the kept rows; nowhere by default."}
    )
    sage_strategy: str = _knob("strategy")
    sage_gate: float | str | None = _knob("gate")
    sage_spectrum_power: float | str | None = _knob("spectrum_power")
    sage_sketch_size: int | str | None = _knob("sketch_size")
    sage_max_row_norm: float | str | None = _knob("max_row_norm")
    # HfArgumentParser takes the type in the middle: text.
    sage_projection: int | str | None = _knob("projection")
    sage_row_width: int | str | None = _knob("row_width")
    sage_target_modules: list[str] | str | None = _knob("target_modules")
    sage_preset: str = _knob("preset")
    sage_consensus: str = _knob("consensus")
    sage_group_by: str | None = _knob("group_by")
    sage_num_clusters: int = _knob("num_clusters")
    sage_balance: str = _knob("balance")
    sage_min_per_group: int = _knob("min_per_group")
    sage_loss_reduction: str = _knob("loss_reduction")
    sage_shard_size: int = _knob("shard_size")
    sage_check_gradients: bool = _knob("check_gradients")
    sage_recheck_every: int = _knob("recheck_every")
    sage_seed: int = _knob("seed")

    def __post_init__(self) -> None:
        self.check_sage()
        super().__post_init__()  # type: ignore[misc]  # of the training arguments behind this class
        training: Any = self
        if self.sage_is_on and training.max_steps <= 0 and self.sage_warmup_epochs >= training.num_train_epochs:
            raise ConfigError(
                f"The warm-up of {self.sage_warmup_epochs:g} epochs is not shorter than the training of "
                f"{training.num_train_epochs:g}",
                where="sage_warmup_epochs",
                fix="Lower sage_warmup_epochs (a fraction of an epoch is allowed), or raise num_train_epochs.",
            )

    def check_sage(self) -> None:
        """Checks the knobs, which may have been set since the arguments were made; raises as the class does."""
        self.sage_config()  # checks the values
        refresh, warmup = self.sage_refresh_epochs, self.sage_warmup_epochs
        if isinstance(refresh, bool) or not isinstance(refresh, int) or refresh < 0:
            raise ConfigError(
                f"sage_refresh_epochs is {refresh!r}", where="sage_refresh_epochs", fix="Give whole passes, 0 or more."
            )
        if isinstance(warmup, bool) or not isinstance(warmup, (int, float)) or not 0 <= warmup < math.inf:
            raise ConfigError(
                f"sage_warmup_epochs is {warmup!r}", where="sage_warmup_epochs", fix="Give 0 epochs or more, 0.5 say."
            )

    @property
    def sage_is_on(self) -> bool:
        """Whether there is a budget, and so a selection."""
        return self.sage_fraction is not None or self.sage_num_examples is not None

    def sage_config(self) -> SageConfig:
        """The settings of a selection."""
        names = [name for name in _CONFIG_FIELDS if name not in _NOT_HERE]
        size: Any = self.sage_batch_size
        if size is None:
            size = getattr(self, "per_device_train_batch_size")  # noqa: B009  # of the class behind this one
        values = {name: getattr(self, f"sage_{name}") for name in names}
        try:
            return SageConfig(**{name: from_text(name, value) for name, value in values.items()}, batch_size=size)
        except SageError as error:
            raise self._in_own_words(error) from error

    def _in_own_words(self, error: SageError) -> SageError:
        """An error of the settings, with these as they are called here."""
        own = {name: f"sage_{name}" for name in _CONFIG_FIELDS}
        if self.sage_batch_size is None:
            own["batch_size"] = "per_device_train_batch_size"
        wrong = [name for name in error.where.split(", ") if name in own]
        names = re.compile(rf"\b({'|'.join(wrong)})\b(?!')")  # not where it is quoted as a value
        what, where, fix = (
            names.sub(lambda found: own[found[0]], part) for part in (error.what, error.where, error.fix)
        )
        return type(error)(what, where=where, fix=fix) if wrong else error


@dataclass
class SageTrainingArguments(SageArguments, TrainingArguments):
    """`transformers.TrainingArguments` with the knobs of a selection; see `SageArguments` for these.

    Example:
        >>> args = SageTrainingArguments("out", num_train_epochs=5, sage_fraction=0.1, sage_refresh_epochs=2)
    """
