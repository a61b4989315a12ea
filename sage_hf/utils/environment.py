"""What a bug report needs to know of a machine: versions and devices, and nothing that is private."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import torch

from .. import __version__

# What a selection can depend on; optional ones are listed where they are installed.
_PACKAGES = ("torch", "transformers", "datasets", "accelerate", "huggingface-hub", "safetensors", "numpy")
_OPTIONAL = ("peft", "trl", "tokenizers", "pillow", "matplotlib", "scikit-learn")


def describe_environment() -> dict[str, str]:
    """Names and values, in the order in which to show them; no path, no user, no token."""
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "sage_hf": __version__,
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **{name: _version(name) or "not installed" for name in _PACKAGES},
        **{name: held for name in _OPTIONAL if (held := _version(name))},
        "CUDA": f"{torch.version.cuda}, {len(devices)} devices" if devices else "none",
        **{f"device {index}": name for index, name in enumerate(devices)},
        "accelerator": str(torch.accelerator.current_accelerator() or "cpu"),
        "threads": str(torch.get_num_threads()),
    }


def library_versions() -> dict[str, str]:
    """Versions of what a selection's result can depend on."""
    versions = {name.replace("-", "_"): _version(name) for name in (*_PACKAGES, "peft")}
    held = {name: each for name, each in versions.items() if each}
    return {"python": platform.python_version(), "sage_hf": __version__, **held}


@cache  # reading a package's metadata takes a millisecond
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
