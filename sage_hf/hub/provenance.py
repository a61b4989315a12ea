"""Where a selection comes from: dataset, model and versions, by names that others can follow.

Nothing here names a folder of this machine, because it goes into cards and files that are made public.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePath
from typing import Any

from datasets import Dataset, IterableDataset
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import HFValidationError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import validate_repo_id
from torch import nn

from ..utils.fingerprint import dataset_digest

# How datasets names the cache of a dataset from the Hub: owner___name/configuration/version/commit/file.
_CACHED = re.compile(r"(?:([\w.-]+?)___)?([\w.-]+)/([^/]+)/\d+\.\d+\.\d+/([0-9a-f]{40})/[^/]+$")
# How it names a file that a stream reads.
_STREAMED = re.compile(r"hf://datasets/([\w.-]+(?:/[\w.-]+)?)@([0-9a-f]{40})/")


def describe_origin(dataset: Dataset | IterableDataset) -> dict[str, Any]:
    """What the rows are of: `source` (see `describe_dataset`), and `source_digest`, which is None of a stream."""
    return {
        "source": describe_dataset(dataset),
        "source_digest": dataset_digest(dataset) if isinstance(dataset, Dataset) else None,
    }


def describe_model(model: nn.Module) -> dict[str, str | None]:
    """The model's class, and the Hub id and commit of the checkpoint that it was loaded from, where they are known.

    Training does not change the id: the weights' fingerprint tells whether they are the checkpoint's. Newer versions
    of transformers keep no commit; it is known, then, where the Hub's cache holds one commit of the checkpoint.
    """
    config = getattr(model, "config", None)
    name = getattr(config, "_name_or_path", None) or ""
    commits = _cached_commits(name)
    known = getattr(config, "_commit_hash", None) or (commits[0] if len(commits) == 1 else None)
    return {"class": type(model).__name__, "id": name if known or commits else None, "revision": known}


def describe_dataset(dataset: Dataset | IterableDataset) -> dict[str, Any]:
    """A dataset's name, its split and all splits' names, and its Hub id and commit where its files tell them.

    Returns:
        `name`, `id`, `config`, `split`, `splits` (a list), `revision`; None where it is not known.
    """
    info = dataset.info
    facts = {
        # What was read from files alone is called after their format.
        "name": info.dataset_name if info.dataset_name != info.builder_name else None,
        "id": None,
        "config": info.config_name,
        "split": str(dataset.split) if dataset.split else None,
        "splits": [str(name) for name in info.splits or {}],
        "revision": None,
    }
    if isinstance(dataset, Dataset):
        for file in dataset.cache_files:
            if match := _CACHED.search(PurePath(file["filename"]).as_posix()):
                owner, name, config, commit = match.groups()
                return facts | {"id": f"{owner}/{name}" if owner else name, "config": config, "revision": commit}
    elif match := _STREAMED.match(_first_file(dataset)):
        return facts | {"id": match[1], "revision": match[2]}
    return facts


def _cached_commits(name: str) -> list[str]:
    """The commits of a model that the Hub's cache holds; none where the name is a folder's, or of no repository."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return []
    if not name or Path(name).exists():
        return []
    snapshots = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model") / "snapshots"
    return sorted(path.parent.name for path in snapshots.glob("*/config.json"))


def _first_file(stream: IterableDataset) -> str:
    """Address of the first file that a stream reads; empty where it reads none.

    datasets has no public way to it. Where its inner parts change, a stream is one whose origin is not known.
    """
    inner = getattr(stream, "_ex_iterable", None)
    while (deeper := getattr(inner, "ex_iterable", None)) is not None:
        inner = deeper
    files = getattr(inner, "kwargs", {}).get("files") or [""]
    return str(files[0])
