"""What can be known to fail before anything is sent to the Hub: names, rights, what is there, what cannot be held."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets import Dataset
from datasets.exceptions import DatasetsError
from huggingface_hub import DatasetCard, HfApi

# HTTPError is the HTTP library's, whichever it is: connections that fail, too.
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from ..errors import ConfigError, HubError, SageError
from .dataset_card import folder
from .files import JSON_NAME
from .held import check_files, check_parquet, check_saved
from .reach import LOGIN, obstacle
from .retry import persistently

LIBRARY = "sage_hf"
README = "README.md"
# What the Hub's library tells its callers of a wrong name.
_HINT = " Use `repo_type` argument if needed"
# Characters of a value in a card's metadata; what the Hub lists and searches is shorter by far.
_LONGEST_FIELD = 1000
# Files of a repository that hold no rows.
_NO_ROWS = re.compile(r"(\.gitattributes|README\.md|LICENSE.*|sage/.*)$")


@contextmanager
def asking(repo_id: str, what: str, fix: str, state: str = "") -> Iterator[None]:
    """What the Hub answers, as one of our errors.

    Args:
        repo_id: The repository.
        what: What could not be done.
        fix: What to do where nothing else is known to be in the way.
        state: What was done of it by then, and what becomes of that.
    """
    try:
        yield
    except SageError:
        raise
    except (HTTPError, OSError, ValueError, RuntimeError, DatasetsError) as error:  # an upload's is a RuntimeError
        in_the_way = obstacle(error, repo_id, is_push=True)
        if in_the_way is None:
            said, way_out = f"{what}: {first_line(error)}", fix
        else:
            said = in_the_way.what if in_the_way.is_no_answer else f"{what}: {in_the_way.what}"
            way_out = in_the_way.fix
        raise HubError(said, where=repo_id, fix=f"{way_out} {state}".strip()) from error


def first_line(error: BaseException) -> str:
    """What an error says, without what follows; of addresses without the signatures that give a right to write."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    line = line.removesuffix(_HINT).rstrip(".")
    return re.sub(r"(https?://[^\s?]+)\?\S+", r"\1", line)


def check_push(
    repo_id: str,
    origin: Mapping[str, Any],
    *,
    config_name: str = "default",
    revision: str | None = None,
    overwrite: bool = False,
    scores_only: bool = False,
    token: str | None = None,
) -> str:
    """Checks that a push can begin; to be called before a long run, too.

    Args:
        repo_id: "owner/name", or a name of the user's own.
        origin: `source` and `source_digest` as in a selection's stats: what the rows are of.
        config_name: The configuration that is pushed.
        revision: The branch that is pushed to.
        overwrite: Whether other data may be replaced.
        scores_only: Whether no rows are pushed.
        token: The Hub's token.

    Returns:
        The whole name of the repository, with its owner.

    Raises:
        HubError: The name is none, nobody is logged in, the token may only read, the Hub cannot be reached, or the
            configuration is there with other data.
        ConfigError: The configuration's name cannot be one.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise HubError(
            f"{repo_id!r} is not a valid name of a repository: {first_line(error)}",
            where="repo_id",
            fix="Give owner/name.",
        ) from error
    # The folder of the default configuration is called "data".
    if config_name == "data" or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", config_name):
        raise ConfigError(
            f"config_name is {config_name!r}", where="config_name", fix='Use letters and digits, and not "data".'
        )
    api = HfApi(token=token, library_name=LIBRARY)
    with asking(repo_id, "The Hub does not know who is asking", LOGIN):
        user = persistently(api.whoami)
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise HubError(
            "The token only gives read access",
            where=repo_id,
            fix="Create a token with write access, and log in with it.",
        )
    repo_id = repo_id if "/" in repo_id else f"{user['name']}/{repo_id}"
    has_rows, stats = _configuration(api, repo_id, config_name, revision)
    if has_rows and scores_only:
        raise HubError(
            f"The configuration {config_name!r} of the repository already holds rows, so scores alone cannot go there",
            where=repo_id,
            fix="Choose another repository or config_name.",
        )
    if stats is not None:
        is_other = not _is_same(stats, origin)
    else:  # rows without a story may be those of a push that broke off
        is_other = has_rows and not _is_unfinished(api, repo_id, revision, mark(origin, config_name))
    if is_other and not overwrite:
        raise HubError(
            f"The repository already has other data in the configuration {config_name!r}",
            where=repo_id,
            fix="Choose another repository or config_name, or pass overwrite=True.",
        )
    return repo_id


def mark(origin: Mapping[str, Any], config_name: str) -> str:
    """What the commit of some rows says of them, by which a push that broke off after it is known."""
    known = origin["source_digest"] or [origin["source"][name] for name in ("id", "config", "split")]
    return f"Rows for sage_hf {hashlib.sha256(json.dumps([config_name, known]).encode()).hexdigest()[:16]}"


def read_card(api: HfApi, repo_id: str, revision: str | None) -> DatasetCard | None:
    """The card of a dataset repository; None where it has none."""
    try:
        path = persistently(lambda: api.hf_hub_download(repo_id, README, repo_type="dataset", revision=revision))
    except (EntryNotFoundError, RevisionNotFoundError):
        return None
    # Bytes, because reading as text would change line ends.
    return DatasetCard(Path(path).read_bytes().decode(), ignore_metadata_errors=True)


def check_rows(splits: Mapping[str, Dataset]) -> None:
    """Refuses columns of types that parquet, and so the Hub, cannot hold, and files of other kinds than their column.

    Raises:
        DatasetError: Names the column.
    """
    for name, rows in splits.items():
        check_parquet(rows.features, f"split {name!r}")
        check_saved(rows.features)
        check_files(rows)


def check_metadata(repo_id: str, card: DatasetCard) -> None:
    """Refuses card metadata that the Hub would; its own validator has the last word.

    Raises:
        HubError: Names the field.
    """
    for name, value in card.data.to_dict().items():
        longest = max((len(str(each)) for each in (value if isinstance(value, list) else [value])), default=0)
        if longest > _LONGEST_FIELD:
            raise HubError(
                f"A value of the card's metadata has {longest:,} characters, but {_LONGEST_FIELD:,} are allowed",
                where=f"{repo_id}, {name}",
                fix="Shorten it in the source's card, in the repository's card, or with `license`.",
            )
    with asking(repo_id, "The Hub does not take the card's metadata", "Check `license`, and the source's card."):
        persistently(card.validate)


def check_license(source: Mapping[str, Any], source_card: DatasetCard | None, license: str | None) -> None:
    """Refuses to hand on the rows of a repository that states no licence, unless one is named.

    Raises:
        HubError: Neither does.
    """
    stated = source_card.data.to_dict().get("license") if source_card is not None else None
    if source["id"] is not None and not stated and not license:
        raise HubError(
            "The source states no licence",
            where=source["id"],
            fix='Ask its authors and pass license="...", or "unknown"; or push the scores alone (scores_only).',
        )


def _configuration(
    api: HfApi, repo_id: str, config_name: str, revision: str | None
) -> tuple[bool, dict[str, Any] | None]:
    """Whether a configuration has rows in a repository, and the stats of its selection; None where it has none."""
    with asking(repo_id, "The repository cannot be read", "Check its name and your rights to it. " + LOGIN):
        try:
            held = persistently(lambda: api.list_repo_files(repo_id, repo_type="dataset", revision=revision))
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return False, None
        card = read_card(api, repo_id, revision)
        configs = card.data.to_dict().get("configs") if card is not None else None
        if configs:
            has_rows = config_name in [each.get("config_name") for each in configs]
        else:
            has_rows = config_name == "default" and any(not _NO_ROWS.match(path) for path in held)
        facts = f"{folder(config_name)}/{JSON_NAME}"
        if facts not in held:
            return has_rows, None
        file = persistently(lambda: api.hf_hub_download(repo_id, facts, repo_type="dataset", revision=revision))
        return has_rows, json.loads(Path(file).read_text(encoding="utf-8"))["stats"]


def _is_unfinished(api: HfApi, repo_id: str, revision: str | None, marked: str) -> bool:
    """Whether the last commit of a repository is that of some rows, and their card has not followed."""
    with asking(repo_id, "The repository cannot be read", "Check its name and your rights to it. " + LOGIN):
        commits = persistently(lambda: api.list_repo_commits(repo_id, repo_type="dataset", revision=revision))
    return bool(commits) and marked in commits[0].message


def _is_same(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two selections are of the same rows; of streams, whose rows have no digest, of the same repository."""
    if now["source_digest"] is not None or then.get("source_digest") is not None:
        return bool(then.get("source_digest") == now["source_digest"])
    names = ("id", "config", "split")
    return now["source"]["id"] is not None and all(then["source"][name] == now["source"][name] for name in names)
