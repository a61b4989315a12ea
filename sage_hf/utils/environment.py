"""What a bug report needs to know of a machine: versions and devices, and nothing that is private."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

# What a selection can depend on; optional ones are listed where they are installed.
_PACKAGES = ("torch", "transformers", "datasets", "accelerate", "huggingface-hub", "safetensors", "numpy")
_OPTIONAL = ("peft", "trl", "tokenizers", "pillow", "matplotlib", "scikit-learn")


def describe_environment() -> dict[str, str]:
    """Names and values, in the order in which to show them; no path, no user, no token."""
    about = {
        "sage_hf": _version("sage-hf") or "not installed",
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    about |= {name: _version(name) or "not installed" for name in _PACKAGES}
    about |= {name: found for name in _OPTIONAL if (found := _version(name))}
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    about["CUDA"] = f"{torch.version.cuda}, {len(devices)} devices" if devices else "none"
    about |= {f"device {index}": name for index, name in enumerate(devices)}
    about["accelerator"] = str(torch.accelerator.current_accelerator() or "cpu")
    about["threads"] = str(torch.get_num_threads())
    return about


def library_versions() -> dict[str, str]:
    """Versions of what a selection's result can depend on."""
    names = ("sage-hf", *_PACKAGES, "peft")
    found = {name.replace("-", "_"): known for name in names if (known := _version(name))}
    return {"python": platform.python_version(), **found}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
