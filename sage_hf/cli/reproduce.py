"""The shell's command that makes a selection again."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from ..config import SageConfig


def select_command(model: str, dataset: str, output: str, options: dict[str, Any], config: SageConfig) -> list[str]:
    """`sage-hf select` with what differs from its defaults; files and folders by their last name, not their place.

    Args:
        model: As given in the shell.
        dataset: As given in the shell.
        output: Name of the folder for the result.
        options: Options of the command besides the config's; None and False are left out.
        config: The settings.
    """
    command = ["sage-hf", "select", _public(model), _public(dataset)]
    changed = {each.name: getattr(config, each.name) for each in fields(config)}
    changed = {each.name: changed[each.name] for each in fields(config) if changed[each.name] != each.default}
    for name in ("target", "checkpoints"):
        if options.get(name):
            options = {**options, name: [_public(path) for path in options[name].split(",")]}
    for name, value in {**options, **changed}.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            command.append(flag)
        elif value is False and name in changed:
            command.append(f"--no-{flag[2:]}")
        elif isinstance(value, list):
            command += [flag, ",".join(value)]
        elif value is None and name in changed:
            command += [flag, "none"]
        elif value is not None and value is not False:
            command += [flag, str(value)]
    return [*command, "--output", output]


def _public(path: str) -> str:
    return Path(path).name if Path(path).exists() else path
