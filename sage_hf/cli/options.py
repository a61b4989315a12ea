"""Options that several commands of the shell share, and how a command tells of an error."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Container
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from rich.console import Console
from torch import nn

from ..config import BALANCES, CONSENSUSES, LOSS_REDUCTIONS, SageConfig, from_text
from ..errors import ConfigError, SageError
from ..strategies import STRATEGIES

if TYPE_CHECKING:
    from .loading import Loaded

_WARM_UP = "Warm-up: a fresh head's gradients say nothing"
INPUT = "Model and dataset"
_AMOUNTS = ("fraction", "num_examples", "balance", "min_per_group")


def _words(name: str, values: Any) -> type[Enum]:
    return Enum(name, {value: value for value in values}, type=str)  # type: ignore[return-value]


# Fields that take one of a few words.
_CHOICES = {
    "strategy": _words("Strategy", STRATEGIES),
    "balance": _words("Balance", BALANCES),
    "consensus": _words("Consensus", CONSENSUSES),
    "loss_reduction": _words("LossReduction", LOSS_REDUCTIONS),
}


# Options that are text, or whose default does not tell their type.
_TYPES: dict[str, Any] = {
    "fraction": float | None,
    "num_examples": int | None,
    "projection": str,
    "target_modules": str,
    "group_by": str,
    "gate": str | None,
    "spectrum_power": str | None,
    "cache_gradients": str | None,
    "text_columns": str | None,
}


@dataclass(frozen=True)
class Sources:
    """The options that name a model and a dataset; see their help."""

    model: Annotated[str, typer.Argument(help="Checkpoint or PEFT adapter: a folder or a Hub id.")]
    dataset: Annotated[str, typer.Argument(help="A json, csv or parquet file, a folder of data, or a Hub id.")]
    split: Annotated[str, typer.Option(help="Split of the dataset.", rich_help_panel=INPUT)] = "train"
    dataset_name: Annotated[
        str | None, typer.Option(help="The dataset's configuration on the Hub.", rich_help_panel=INPUT)
    ] = None
    task: Annotated[
        str | None,
        typer.Option(
            help="causal-lm, sequence-classification or image-classification; told from the checkpoint by default.",
            rich_help_panel=INPUT,
        ),
    ] = None
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of the dataset on the Hub.", rich_help_panel=INPUT)
    ] = None
    model_revision: Annotated[str | None, typer.Option(help="The same of the model.", rich_help_panel=INPUT)] = None
    device: Annotated[
        str | None, typer.Option(help="Such as cpu or cuda:0; the best there is by default.", rich_help_panel=INPUT)
    ] = None
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16, or auto for the checkpoint's.", rich_help_panel=INPUT)
    ] = "auto"

    def load_model(self, rows: Any, device: torch.device, seed: int, console: Console) -> Loaded:
        """The model, and what encodes the rows.

        Args:
            rows: The dataset or stream; None where there is none.
            device: Where the model goes, if the user named no other.
            seed: Of weights that the checkpoint lacks.
            console: Is told.
        """
        loaded = self.load_again(rows, self.device or str(device), seed)
        count = f"{len(rows):,} rows" if hasattr(rows, "__len__") else "A stream"
        of = "" if rows is None else f"{count} of {plain(self.dataset)}, "
        console.print(f"{of}{type(loaded.model).__name__} for {loaded.task}.")
        return loaded

    def load_again(self, rows: Any, device: str, seed: int) -> Loaded:
        """The same on a device, without a word."""
        from .loading import load_model

        return load_model(self.model, rows, self.task, device, self.dtype, self.model_revision, seed)

    def load_earlier(
        self, checkpoints: str | None, rows: Any, device: torch.device, seed: int
    ) -> list[Callable[[], nn.Module]]:
        """What loads each of several checkpoints, named with commas, when its turn comes."""
        from .loading import load_model

        about: dict[str, Any] = {"task": self.task, "device": self.device or str(device), "dtype": self.dtype}
        return [
            functools.partial(lambda path: load_model(path, rows, **about, seed=seed).model, path)
            for path in _parts(checkpoints)
        ]


@dataclass(frozen=True)
class Inputs(Sources):
    """The same, and those of a warm-up."""

    warmup_steps: Annotated[
        int | None, typer.Option(help="Train this many steps on random rows first.", rich_help_panel=_WARM_UP)
    ] = None
    warmup_fraction: Annotated[
        float | None, typer.Option(help="Train on this share of the rows first.", rich_help_panel=_WARM_UP)
    ] = None
    warmup_learning_rate: Annotated[float, typer.Option(help="For the warm-up.", rich_help_panel=_WARM_UP)] = 5e-5

    @property
    def warms_up(self) -> bool:
        """Whether a warm-up was asked for."""
        return self.warmup_steps is not None or self.warmup_fraction is not None

    def check(self) -> None:
        """Refuses options that exclude each other, before anything is loaded.

        Raises:
            ConfigError: Both steps and a share were given for the warm-up.
        """
        if self.warmup_steps is not None and self.warmup_fraction is not None:
            raise ConfigError(
                "Both --warmup-steps and --warmup-fraction were given", where="--warmup-steps", fix="Give one of them."
            )

    def warm_up(self, loaded: Loaded, rows: Any, config: SageConfig, console: Console) -> None:
        """Trains the model for a little, if that was asked for; if not and its head is new, warns.

        Args:
            loaded: The model.
            rows: The dataset.
            config: The settings.
            console: Is told.
        """
        from ..training.warmup import WARM_UPS, warm_up

        if self.warms_up:
            done = warm_up(
                loaded.model,
                rows,
                steps=self.warmup_steps,
                fraction=self.warmup_fraction,
                learning_rate=self.warmup_learning_rate,
                processing_class=loaded.processing_class,
                config=config,
                cache_dir=WARM_UPS,
            )
            kept = ", as an earlier run left it" if done.is_kept else ""
            console.print(f"Warm-up: {done.steps} steps, mean loss {done.loss:.3f}{kept}.")
            if done.file is not None and not done.is_kept:
                console.print(f"Kept for the next run: {plain(str(done.file))}.")
        elif loaded.new_weights:
            console.print(
                f"[bold yellow]The checkpoint lacks {len(loaded.new_weights)} weights[/] "
                f"({plain(', '.join(loaded.new_weights[:4]))}): they are random, and their gradients say nothing. "
                "Add --warmup-steps or --warmup-fraction."
            )


_OPTIONAL = Annotated[
    str | None, typer.Argument(help="A json, csv or parquet file, a folder of data, or a Hub id; or none.")
]


@dataclass(frozen=True)
class DoctorInputs(Sources):
    """The same, where a model may come alone."""

    dataset: _OPTIONAL = None  # type: ignore[assignment]


def load_targets(target: str | None, shares: str | None, inputs: Inputs) -> dict[str, Any]:
    """`target` and `target_shares` of a selection, from what the shell gives: names with commas, numbers with commas.

    Raises:
        ConfigError: The shares are no numbers, or not one for each target.
        DatasetError: A target cannot be loaded.
    """
    from .loading import load_rows

    names = _parts(target)
    try:
        numbers = [float(number) for number in shares.split(",")] if shares else []
    except ValueError:
        numbers = [0.0]
    if shares and (len(numbers) != len(names) or min(numbers) <= 0):
        raise ConfigError(
            f"The shares are {shares} for {len(names)} targets",
            where="--target-shares",
            fix="Give each target one positive number, with commas.",
        )
    found = {Path(name).stem: load_rows(name, inputs.split) for name in names}
    if len(names) < 2:
        return {"target": next(iter(found.values()), None)}
    if len(found) < len(names):
        raise ConfigError(
            f"Two targets have the same name: {', '.join(names)}", where="--target", fix="Give files other names."
        )
    return {"target": found, "target_shares": dict(zip(found, numbers, strict=True)) if numbers else None}


def _parts(paths: str | None) -> list[str]:
    """Paths and Hub ids that were given with commas; one whose name holds a comma is one."""
    if paths and Path(paths).exists():
        return [paths]
    return [path for path in (paths or "").split(",") if path]


def with_options(command: Callable[..., None], only: Container[str] | None = None) -> Callable[..., None]:
    """Gives a command the options behind its parameters `inputs` and `config`: of their classes, field by field.

    Args:
        command: The function behind the command.
        only: Names of the settings that it takes; all of `SageConfig` by default.
    """
    signature = inspect.signature(command, eval_str=True)
    parameters = signature.parameters
    own = [each for name, each in parameters.items() if name not in ("inputs", "config")]
    kind = parameters["inputs"].annotation if "inputs" in parameters else None
    named = list(inspect.signature(kind, eval_str=True).parameters.values()) if kind is not None else []
    arguments = [each for each in named if each.name in ("model", "dataset")]
    settings = _config_parameters() if "config" in parameters else []
    settings = [each for each in settings if only is None or each.name in only]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        if kind is not None:
            given["inputs"] = kind(**{each.name: given.pop(each.name) for each in named})
        if settings:
            texts = {each.name: from_text(each.name, given.pop(each.name)) for each in settings}
            given["config"] = SageConfig(**texts)
        command(**given)

    others = [each for each in named if each not in arguments]
    made = [*arguments, *own, *others, *settings]
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in made]
    )
    return run


def _config_parameters() -> list[inspect.Parameter]:
    options = []
    for each in fields(SageConfig):
        kind = _CHOICES.get(each.name) or _TYPES.get(each.name) or type(each.default)
        default = _CHOICES[each.name](each.default) if each.name in _CHOICES else each.default
        flag = "--" + each.name.replace("_", "-")
        flags = (f"{flag}/--no-{flag[2:]}",) if kind is bool else (flag,)
        panel = "How much to keep" if each.name in _AMOUNTS else "How to choose"
        metavar = "WORD" if each.name in _CHOICES else None  # the help names the words
        option = typer.Option(*flags, help=each.metadata["help"], rich_help_panel=panel, metavar=metavar)
        options.append(
            inspect.Parameter(
                each.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
            )
        )
    return options


def friendly(command: Callable[..., None]) -> Callable[..., None]:
    """Shows a `SageError` as a message, without a traceback."""

    @functools.wraps(command)
    def run(**given: Any) -> None:
        try:
            command(**given)
        except SageError as error:
            console = Console(stderr=True)
            console.print(f"[bold red]Error[/] in {plain(error.where)}: {plain(error.what)}.")
            console.print(f"[bold]What to do:[/] {plain(error.fix)}")
            raise typer.Exit(1) from error
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    return run


def plain(text: str) -> str:
    """Text that `rich` prints as it is."""
    return text.replace("[", r"\[")
