"""What the commands of the shell share: options, a console, words of the version before, how an error is told.

Whatever loads torch, transformers or datasets is imported where a run begins: help and wrong words are answered
before.
"""

from __future__ import annotations

import functools
import inspect
import logging
import math
import os
import warnings
from collections.abc import Callable, Container, Sized
from dataclasses import MISSING, Field, dataclass, field, fields
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from rich.text import Text
from typer.core import TyperGroup

from ..config import SageConfig
from ..errors import ConfigError, OutputError, SageError
from ..utils.console import PlainConsole
from ..utils.deprecation import OLD_WORDS, about_old
from ..utils.setting_text import from_text
from .interrupt import interruptible
from .output import is_quiet, speaking
from .paths import check_folder, check_local
from .wording import in_the_shell, name_columns, number_rows

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

    from .models import Loaded

logger = logging.getLogger(__name__)

INPUT = "Model and dataset"
# The stage in which rows and model are loaded.
LOADING = "loading"
DATASET = (
    "A json, csv or parquet file, a folder of such files, a folder of images with one subfolder a class (cat/01.png), "
    "a save_to_disk folder, or a Hub id."
)
_WARM_UP = "Warm-up: the gradients of a new head mean little without one"
# The panels of the help that settings stand in; the others are of the choice.
_PANELS = {
    "How much to keep": ("fraction", "num_examples", "balance", "min_per_group"),
    INPUT: ("text_columns", "max_length"),
    "Gradients": (
        *("sketch_size", "max_row_norm", "projection", "row_width", "target_modules", "preset", "loss_reduction"),
    ),
    "Speed and memory": ("batch_size", "shard_size", "cache_gradients", "num_workers"),
    "Checks": ("check_gradients", "recheck_every"),
}
_PANEL_OF = {name: panel for panel, names in _PANELS.items() for name in names}
# Types of settings that their default does not tell; others that are None by default are text.
_TYPES: dict[str, Any] = {
    "fraction": float | None,
    "num_examples": int | None,
}
# Settings that are one of some words, which the help names; that a word is none of them is told by `SageConfig`.
_WORDS = ("strategy", "balance", "consensus", "preset", "loss_reduction", "target_reduction")
# Characters of a part of an error that are shown.
_LONGEST = 1500


def option(default: Any, help: str, panel: str | None = None, **settings: Any) -> Any:
    """A field of a class of options; its default is `...` where it has none, the rest as of `typer.Option`.

    Flags other than the field's name are given as `flags`, parted by spaces.
    """
    metadata = {"help": help, "rich_help_panel": panel, **settings}
    return field(default=MISSING if default is ... else default, metadata=metadata)


def argument(help: str, default: Any = ...) -> Any:
    """The same of what is named by its place."""
    return option(default, help, is_argument=True)


@dataclass(frozen=True)
class Sources:
    """The options that name a model and a dataset; see their help."""

    model: str = argument("Checkpoint or PEFT adapter: a folder or a Hub id.")
    dataset: str = argument(DATASET)
    split: str = option("train", "Split of the dataset.", INPUT)
    dataset_config: str | None = option(None, "The dataset's configuration on the Hub.", INPUT)
    task: str | None = option(
        None, "causal-lm, sequence-classification or image-classification; by default, the checkpoint's.", INPUT
    )
    dataset_revision: str | None = option(None, "Branch, tag or commit of the dataset on the Hub.", INPUT)
    model_revision: str | None = option(None, "Branch, tag or commit of the model on the Hub.", INPUT)
    device: str | None = option(
        None, "Device to run on, such as cpu or cuda:0; by default, the best available.", INPUT
    )
    dtype: str = option("auto", "Type of the weights: float32, bfloat16, or auto (as in the checkpoint).", INPUT)
    label_column: str | None = option(None, "Column of the class labels; it is renamed to label.", INPUT)
    column_mapping: str | None = option(None, "Columns to rename, as old=new; separate several with commas.", INPUT)
    drop_missing: bool = option(False, "Leave out rows without a text or a label, and say how many.", INPUT)

    def check(self) -> None:
        """Refuses a path that is not there: at once, and not after seconds of imports."""
        check_folder(self.model)
        if self.dataset is not None:  # a doctor may have none
            check_local(self.dataset)

    def load_rows(
        self, config: SageConfig, split: str | None = None, *, streaming: bool = False, allow_missing: bool = False
    ) -> Dataset | IterableDataset:
        """The rows of a split, of the one that the user named by default, with their columns as they are to be.

        Rows that lack a value are an error, unless the user lets them be dropped, or all may stay.
        """
        from ..data.status import ROW_COLUMN
        from .columns import arranged
        from .rows import load_rows

        name = split or self.split
        option = "--split" if split is None else "--test-split"
        rows = load_rows(
            self.dataset, name, self.dataset_config, streaming, self.dataset_revision, split_option=option
        )
        rows, said = arranged(rows, self, config.text_columns, allow_missing)
        if said:
            number_rows(rows.with_format(None)[ROW_COLUMN][:])
            logger.warning("%s", said)
        return rows

    def load_model(self, rows: Dataset | IterableDataset | None, seed: int, *, quiet: bool = False) -> Loaded:
        """The model, and what encodes the rows; says what was loaded, unless it is to be quiet."""
        from ..passes.processes import launched
        from .models import load_model

        device = self.device or str(launched().device)
        loaded = load_model(self.model, rows, self.task, device, self.dtype, self.model_revision, seed)
        if not quiet:
            self.say_loaded(rows, loaded)
        return loaded

    def say_loaded(self, rows: Dataset | IterableDataset | None, loaded: Loaded) -> None:
        """Says which rows and which model were loaded."""
        count = f"{len(rows):,} rows" if isinstance(rows, Sized) else "A stream"
        origin = "" if rows is None else f"{count} of {self.dataset}, "
        main_console().print(f"{origin}{type(loaded.model).__name__} for {loaded.task}.", markup=False)


@dataclass(frozen=True)
class Inputs(Sources):
    """The same, and those of a warm-up."""

    warmup_steps: int | None = option(None, "Train this many steps on random rows first.", _WARM_UP)
    warmup_fraction: float | None = option(None, "Train on this share of the rows first.", _WARM_UP)
    warmup_learning_rate: float = option(5e-5, "Learning rate of the warm-up.", _WARM_UP)

    def __post_init__(self) -> None:
        if self.warmup_steps is not None and self.warmup_fraction is not None:
            raise ConfigError(
                "Both --warmup-steps and --warmup-fraction were given", where="--warmup-steps", fix="Give one of them."
            )
        steps, fraction, rate = self.warmup_steps, self.warmup_fraction, self.warmup_learning_rate
        for option, value, is_well, fix in (
            ("--warmup-steps", steps, steps is None or steps > 0, "Take at least one step."),
            ("--warmup-fraction", fraction, fraction is None or 0 < fraction <= 1, "Give a share from above 0 to 1."),
            ("--warmup-learning-rate", rate, 0 < rate < math.inf, "Give a number above 0, such as 5e-5."),
        ):
            if not is_well:
                raise ConfigError(f"The value is {value}", where=option, fix=fix)

    @property
    def warms_up(self) -> bool:
        """Whether a warm-up was asked for."""
        return self.warmup_steps is not None or self.warmup_fraction is not None

    def load_model(self, rows: Dataset | IterableDataset | None, seed: int, *, quiet: bool = False) -> Loaded:
        """As of `Sources`; rows without a label are an error where the task needs one."""
        from .columns import check_labels

        loaded = super().load_model(rows, seed, quiet=quiet)
        check_labels(rows, loaded.task, self.dataset)
        return loaded

    def warm_up(self, loaded: Loaded, rows: Any, config: SageConfig) -> None:
        """Trains the model for a little, if that was asked for; if not and its head is new, warns."""
        from ..training import warmup

        console = main_console()
        if self.warms_up:
            done = warmup.warm_up(
                loaded.model,
                rows,
                steps=self.warmup_steps,
                fraction=self.warmup_fraction,
                learning_rate=self.warmup_learning_rate,
                processing_class=loaded.processing_class,
                config=config,
                cache_dir=warmup.WARM_UPS,
            )
            kept = ", reused from an earlier run" if done.is_kept else ""
            console.print(f"Warm-up: {done.steps} steps, mean loss {done.loss:.3f}{kept}.")
            if done.file is not None and not done.is_kept:
                console.print(f"Kept for the next run: {done.file}.", markup=False)
        elif loaded.new_weights:
            logger.warning(
                "The checkpoint lacks %d weights (%s): they are random, and their gradients say nothing. Add "
                "--warmup-steps or --warmup-fraction.",
                len(loaded.new_weights),
                ", ".join(loaded.new_weights[:4]),
            )


@dataclass(frozen=True)
class Volume:
    """How much a command says; see their help."""

    quiet: bool = option(False, "Print only warnings, errors and the result.", flags="--quiet -q")
    verbose: bool = option(False, "Print details of the run, too.", flags="--verbose -v")


def with_options(command: Callable[..., bool | None], only: Container[str] | None = None) -> Callable[..., None]:
    """Gives the shell an option for every field of a command's parameters, which are classes of options.

    The processes of a launch all call it, and end together, with exit code 1 where it returns False. `only` names the
    settings of `SageConfig` that it takes; all by default.
    """
    kinds = {name: each.annotation for name, each in inspect.signature(command, eval_str=True).parameters.items()}
    options = {name: [_parameter(kind, each) for each in fields(kind)] for name, kind in kinds.items()}
    if only is not None:
        options["config"] = [each for each in options["config"] if each.name in only]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        with speaking(values.pop("quiet"), values.pop("verbose")):
            # Fields of other classes than SageConfig stay as they are.
            read = {name: from_text(name, value) for name, value in values.items()}
            groups = [kind(**{each.name: read[each.name] for each in options[name]}) for name, kind in kinds.items()]
            for group in groups:
                if isinstance(group, Sources):
                    group.check()
            is_well = command(*groups)
            from ..passes.processes import end_together

            end_together()
        if is_well is False:
            raise typer.Exit(1)

    told = [_parameter(Volume, each) for each in fields(Volume)]
    run.__signature__ = inspect.Signature([*chain(*options.values()), *told])  # type: ignore[attr-defined]
    return run


def _parameter(kind: type, field: Field[Any]) -> inspect.Parameter:
    """What Typer reads of a field: its type, its default, its flags and its help."""
    name, default, settings = field.name, field.default, dict(field.metadata)
    hint = get_type_hints(kind)[name]
    if kind is SageConfig:
        hint = _TYPES.get(name, str | None if default is None else type(default))
        settings["rich_help_panel"] = _PANEL_OF.get(name, "How to choose")
        settings["metavar"] = "WORD" if name in _WORDS else None
    flag = "--" + name.replace("_", "-")
    flags = settings.pop("flags", f"{flag}/--no-{flag[2:]}" if default is True else flag).split()
    made = typer.Argument(**settings) if settings.pop("is_argument", False) else typer.Option(*flags, **settings)
    if default is MISSING:
        default = inspect.Parameter.empty
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, made])


class Shell(TyperGroup):
    """All commands: takes words of the version before with a warning, and shows an error without a traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Replaces what has another name now."""
        number_rows(None)
        name_columns(None)
        ctx.meta["sage_hf.words"] = words = renamed(args)
        return super().parse_args(ctx, [*words])

    def invoke(self, ctx: Any) -> Any:
        """Runs a command."""
        try:
            with interruptible(ctx.meta["sage_hf.words"]):
                return super().invoke(ctx)
        except (SageError, OSError, UnicodeError) as error:
            _tell(*map(_cut, in_the_shell(as_ours(error))))
            raise typer.Exit(1) from error
        except Exception as error:
            if type(error).__name__ != "NoSuchOption":  # whether of click or of the one that Typer brings along
                raise
            command = ctx.invoked_subcommand
            known = getattr(error, "possibilities", None) or []
            near = f"Did you mean {known[0]}? " if known else ""
            listed = f"`sage-hf {command} --help` lists all options."
            _tell(f"{command} has no such option", str(getattr(error, "option_name", "")), near + listed)
            raise typer.Exit(2) from error


def _tell(what: str, where: str, fix: str) -> None:
    console = PlainConsole(stderr=True)
    console.print(Text.assemble(("Error", "bold red"), f" in {where if where.strip() else repr(where)}: {what}."))
    console.print(Text.assemble(("What to do:", "bold"), f" {fix}"))


def as_ours(error: Exception) -> SageError:
    """An error of the disk that nobody expected, such as of a name that is too long, as one of ours."""
    if isinstance(error, SageError):
        return error
    name, what = getattr(error, "filename", None), getattr(error, "strerror", None)
    return OutputError(
        str(what or f"{type(error).__name__}: {error}"),
        where=str(name or "a file"),
        fix="Check the path and its name.",
    )


def _cut(text: str) -> str:
    """The beginning and the end of a text that no terminal could hold."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"


def renamed(words: list[str]) -> list[str]:
    """A line of the shell in the words of this version, with a DeprecationWarning for each that it replaces."""
    made = []
    for place, word in enumerate(words):
        name, *value = word.split("=", 1)
        new = OLD_WORDS.get(name) if place == 0 or name.startswith("--") else None
        if new is None or (words[0], name) == ("push", "--revision"):  # the branch that is pushed to
            made.append(word)
            continue
        made.append("=".join([new, *value]))
        if os.environ.get("RANK", "0") == "0":  # of the user's own line, so that Python shows it
            text = about_old(name, new)
            warnings.warn_explicit(text, DeprecationWarning, filename="sage-hf", lineno=1, module="__main__")
    return made


def main_console(stderr: bool = True) -> PlainConsole:
    """A console that prints in the main process of a launch alone; on stderr nothing where --quiet was given."""
    from ..passes.processes import launched

    return PlainConsole(stderr=stderr, quiet=not launched().is_main_process or (stderr and is_quiet()))
