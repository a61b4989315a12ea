"""Names that changed, and still work for one minor version: what they are now, and when the old ones go.

The tables here are those of docs/stability.md, which a test holds against them.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from ..errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")
Change = str | tuple[str, Callable[[Any], Any]]

# The version in which what is deprecated now goes.
REMOVED_IN = "0.3.0"
# Every name of Python's that warns: as it was, as it is.
OLD_NAMES: dict[str, str] = {
    "sage_hf.find_suspects": "sage_hf.find_label_issues",
    "sage_hf.select_over": "sage_hf.select_over_checkpoints",
    "sage_hf.Suspects": "sage_hf.LabelIssues",
    "Selection.save": "Selection.save_to_disk",
    "Selection.load": "Selection.load_from_disk",
    "StreamSelection.scores": "StreamSelection.kept_scores",
    "StreamSelection.groups": "StreamSelection.kept_groups",
    'stats["energy"]': "stats.energy",
    'stats.get("energy")': "stats.energy",
    '"energy" in stats': "stats.energy is not None",
    "SageSelector(checkpoint_dir=)": "SageSelector(resume_dir=)",
    "compare(build_model=)": "compare(model_init=)",
    "compare(test_dataset=)": "compare(eval_dataset=)",
    "compare(training=)": "compare(training_args=)",
    "compare(lower_is_better=)": "compare(greater_is_better=)",
    "compare(output=)": "compare(output_dir=)",
    "compare(overwrite=)": "compare(overwrite_output_dir=)",
}
# Commands and options of the shell, the same.
OLD_WORDS: dict[str, str] = {
    "suspects": "label-issues",
    "--dataset-name": "--dataset-config",
    "--revision": "--dataset-revision",
    "--source-name": "--source-config",
    "--most": "--limit",
}


def about_old(old: str, new: str) -> str:
    """What a person is told of an old name."""
    return f"{old} is now {new}; the old name goes in sage_hf {REMOVED_IN}."


def warn_old(old: str, new: str, depth: int = 1) -> None:
    """Warns the caller of the function that calls this that it used an old name.

    Args:
        old: As it was.
        new: As it is.
        depth: Number of functions of sage_hf between this one and the caller.
    """
    warnings.warn(about_old(old, new), DeprecationWarning, stacklevel=depth + 2)


def renamed_arguments(**changes: Change) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator of a function some of whose keyword arguments had other names.

    Args:
        changes: {old name: new name}, or {old name: (new name, old value -> new value)}.

    Raises:
        ConfigError: A call gives both names.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = function.__qualname__.removesuffix(".__init__")

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> R:
            for old in [name for name in kwargs if name in changes]:
                change = changes[old]
                new, convert = (change, lambda value: value) if isinstance(change, str) else change
                if new in kwargs:
                    raise ConfigError(
                        f"Both {new} and {old} were given", where=new, fix=f"Leave out {old}, its old name."
                    )
                warn_old(f"{name}({old}=)", f"{name}({new}=)")
                kwargs[new] = convert(kwargs.pop(old))
            return function(*args, **kwargs)

        return call

    return decorate
