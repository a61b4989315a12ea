"""The shell's command that makes a selection again."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..config import SageConfig
from ..errors import without_secrets
from ..utils.setting_text import to_text
from .options import Inputs


def select_command(inputs: Inputs, config: SageConfig, output: str, **options: Any) -> list[str]:
    """`sage-hf select` with what differs from its defaults; files and folders by their last name, not their place.

    The device is left out, and of the options besides those that are None or False.
    """
    changed = {name: value for name, value in options.items() if value}
    for part in (replace(inputs, device=None), config):
        values = {each.name: (getattr(part, each.name), each.default) for each in fields(part)}
        changed |= {name: value for name, (value, default) in values.items() if value != default}
    command = ["sage-hf", "select", _public(changed.pop("model")), _public(changed.pop("dataset"))]
    for name, value in changed.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            command.append(flag if value else f"--no-{flag[2:]}")
            continue
        if isinstance(value, Path):
            value = _public(str(value))
        if name in ("target", "checkpoints"):
            value = [_public(path) for path in value.split(",")]
        command += [flag, to_text(name, value)]
    return [without_secrets(word) for word in [*command, "--output", output]]


def _public(path: str) -> str:
    return Path(path).name if Path(path).exists() else path
