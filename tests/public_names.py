"""What people build on, a line each: names of Python, fields, options of the shell, columns, files, exit codes.

`python -m tests.public_names` writes them to public_names.txt beside this file; test_stability.py holds them.
"""

import dataclasses
import functools
import importlib
import inspect
from pathlib import Path

from transformers import Trainer
from typer.main import get_command

import sage_hf
from sage_hf import SageConfig, errors
from sage_hf.cli.interrupt import INTERRUPTED
from sage_hf.cli.main import app
from sage_hf.training.arguments import SageArguments

FILE = Path(__file__).with_suffix(".txt")
# Where the version of each kind of file stands.
FORMATS = {
    "selection folder": "hub.files",
    "comparison folder": "comparison.folder",
    "comparison.json": "comparison.result",
    "finished shards (resume_dir)": "passes.resume",
    "gradient rows (cache_dir)": "passes.gradient_cache",
}
# Columns that are written, by the module and the constant that names each.
COLUMNS = {
    "data.status": ("ROW_COLUMN", "SCORE_COLUMN", "LOSS_COLUMN"),
    "selector.issue_list": ("DOUBT_COLUMN", "LABEL_COLUMN", "SUGGESTION_COLUMN", "ACTION_COLUMN"),
}


def public_names():
    """All lines, in an order that does not change by chance."""
    lines = []
    for name in sorted(sage_hf.__all__):
        lines += _of_python(f"sage_hf.{name}", getattr(sage_hf, name))
    lines += sorted(f"sage_hf.errors.{line}" for line in _errors())
    lines += sorted(_of_shell())
    lines += [f"column {name}" for name in _columns()]
    lines += [f"format {name}: {version}" for name, version in formats().items()]
    return [*lines, "exit code 0", "exit code 1", "exit code 2", f"exit code {INTERRUPTED}"]


def formats():
    """{kind of file: its version}."""
    return {name: importlib.import_module(f"sage_hf.{home}").FORMAT_VERSION for name, home in FORMATS.items()}


def _columns():
    return sorted(
        getattr(importlib.import_module(f"sage_hf.{home}"), name) for home, names in COLUMNS.items() for name in names
    )


def _errors():
    for name, kind in vars(errors).items():
        if inspect.isclass(kind) and issubclass(kind, errors.SageError):
            yield f"{name}({', '.join(base.__name__ for base in kind.__bases__)})"


def _of_python(name, thing):
    """The thing, its fields in their order, and what else it has by the alphabet."""
    if not inspect.isclass(thing):
        yield f"{name}{_signature(thing)}"
        return
    is_settings = issubclass(thing, SageConfig | SageArguments)
    is_trainers = any(base.__module__.startswith("transformers") for base in thing.__mro__)
    yield name if is_settings or is_trainers or thing is sage_hf.SageMixin else f"{name}{_signature(thing)}"
    if dataclasses.is_dataclass(thing):
        for field in dataclasses.fields(SageArguments if issubclass(thing, SageArguments) else thing):
            yield f"{name}.{field.name}" + (f" = {field.default!r}" if is_settings else "")
    if issubclass(thing, SageArguments):  # the rest is Trainer's
        return
    for attribute, value in inspect.getmembers(thing):
        if attribute.startswith("_") or not _is_ours(thing, attribute) or hasattr(Trainer, attribute):
            continue
        if isinstance(inspect.getattr_static(thing, attribute), property | functools.cached_property):
            yield f"{name}.{attribute}"
        elif inspect.isroutine(value):
            yield f"{name}.{attribute}{_signature(value)}"


def _is_ours(kind, attribute):
    owner = next(base for base in kind.__mro__ if attribute in vars(base))
    return owner.__module__.startswith("sage_hf")


def _signature(thing):
    """Parameters in their order with their defaults, without types."""
    signature = inspect.signature(thing)
    parameters = [
        each.replace(annotation=inspect.Parameter.empty)
        for each in signature.parameters.values()
        if each.name not in ("self", "cls")
    ]
    return str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


def _of_shell():
    for command, found in get_command(app).commands.items():
        yield f"sage-hf {command}"
        for parameter in found.params:
            names = "/".join([*parameter.opts, *parameter.secondary_opts])
            if parameter.param_type_name == "argument":
                yield f"sage-hf {command} {parameter.name.upper()}{'' if parameter.required else ' (optional)'}"
            elif names != "--help":
                yield f"sage-hf {command} {names}{'' if parameter.required else f' = {parameter.default}'}"


if __name__ == "__main__":
    FILE.write_text("\n".join(public_names()) + "\n", encoding="utf-8")
    print(f"{FILE}: {len(public_names())} lines")
