"""To the Hub and back: the kept rows, their scores and their story.

Rows first, then the card: while a push is under way, or after one that broke off, no card tells of rows that are not
there, and the same call goes on from what is there. The Hub library's own functions send the files; what they do not
ask for again when the Hub fails is asked again here.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import ClassLabel, Dataset, DatasetDict, IterableDataset, Value, load_dataset
from datasets.exceptions import DatasetsError
from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    CommitOperationDelete,
    DatasetCard,
    HfApi,
    snapshot_download,
)
from huggingface_hub.errors import HTTPError

from ..config import SageConfig
from ..data.classes import with_class_names
from ..data.stats import SelectionStats
from ..data.status import ROW_COLUMN, SCORE_COLUMN
from ..data.stream import to_disk
from ..errors import ConfigError, DatasetError, HubError
from ..utils.bars import at
from .checks import (
    LIBRARY,
    LOGIN,
    README,
    asking,
    check_license,
    check_metadata,
    check_push,
    check_rows,
    first_line,
    mark,
    read_card,
)
from .dataset_card import Pushed, card_facts, folder, merge, metadata, render_section, withdraw
from .files import ARRAYS_NAME, JSON_NAME
from .pictures import Seen, save_pictures
from .retry import persistently


@dataclass(frozen=True)
class Push:
    """What is pushed of a selection.

    Attributes:
        stats: Statistics of the selection.
        config: Its settings.
        seen: What the pictures show.
        write_scores: Writes the files of the scores to a folder.
        make_rows: Gives the kept rows with their scores; what it writes for that goes to the folder that it is
            given. None pushes the scores alone.
        all_scores: Whether the scores of rows that were not kept are in the files.
        source_fingerprint: Fingerprint of the source dataset.
    """

    stats: SelectionStats
    config: SageConfig
    seen: Seen
    write_scores: Callable[[Path], None]
    make_rows: Callable[[Path], Dataset] | None
    all_scores: bool
    source_fingerprint: str | None


def push(
    what: Push,
    repo_id: str,
    *,
    config_name: str = "default",
    other_splits: Mapping[str, Dataset | IterableDataset] | None = None,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    overwrite: bool = False,
    token: str | None = None,
    license: str | None = None,
) -> CommitInfo | None:
    """See `Shareable.push_to_hub`."""
    if PartialState._shared_state and not PartialState().is_main_process:
        return None
    source = what.stats.source
    # A pull request replaces nothing until its reader agrees.
    origin = {"source": source, "source_digest": what.stats.source_digest}
    repo_id = check_push(
        repo_id,
        origin,
        config_name=config_name,
        revision=revision,
        overwrite=overwrite or create_pr,
        scores_only=what.make_rows is None,
        token=token,
    )
    api = HfApi(token=token, library_name=LIBRARY)
    split = source["split"] if source["split"] and re.fullmatch(r"\w+(\.\w+)*", source["split"]) else "train"
    with tempfile.TemporaryDirectory(prefix="sage_hf-") as temporary:
        place = Path(temporary)
        splits = {}
        if what.make_rows is not None:
            others = _source_splits(split, source, token) if other_splits is None else other_splits
            splits = _splits(what.make_rows(place), split, others, place)
        source_card = None
        if source["id"] is not None:
            with asking(
                source["id"], "The source's card cannot be read", "Try again, or check your rights to the source."
            ):
                source_card = read_card(api, source["id"], source["revision"])
        if splits:
            check_license(source, source_card, license)
            check_rows(splits)
        scores = place / "scores"
        scores.mkdir()
        what.write_scores(scores)
        pushed = Pushed(
            repo_id=repo_id,
            config_name=config_name,
            split=split,
            splits={name: len(rows) for name, rows in splits.items()} or {split: what.stats.rows},
            pictures=save_pictures(what.seen, scores),
            all_scores=what.all_scores,
            scores_only=what.make_rows is None,
            source_fingerprint=what.source_fingerprint,
        )
        facts = card_facts(what.stats, what.config, pushed, source_card, license)
        section, data = render_section(facts), metadata(facts, source_card)

        def make_card(held: DatasetCard | None) -> DatasetCard:
            return merge(held, section, config_name, data, license)

        check_metadata(repo_id, make_card(None))

        with asking(repo_id, "The repository cannot be made", "Check its name and your rights."):
            persistently(lambda: api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True))
            if revision is not None and not revision.startswith("refs/"):
                branch = revision
                persistently(lambda: api.create_branch(repo_id, branch=branch, repo_type="dataset", exist_ok=True))
        destination = _Destination(api, repo_id, revision, create_pr)
        if splits:
            with asking(
                repo_id,
                "The rows could not be pushed",
                "Check your rights to the repository.",
                "No card tells of them. The same again goes on: files that were sent are not sent twice.",
            ):
                at("rows")
                destination.withdraw(config_name)
                destination.push_rows(DatasetDict(splits), config_name, private, mark(origin, config_name))
        state = "The rows are there, and stand without it. " if splits else "Nothing is there yet. "
        state += "The same again goes on."
        with asking(repo_id, "The card could not be pushed", "Check your rights to the repository.", state):
            at("card and scores")
            return destination.push_story(scores, config_name, make_card)


def fetch(repo_id: str, config_name: str, revision: str | None, token: str | None) -> Path:
    """A folder with the files of a configuration's scores, downloaded.

    Raises:
        HubError: The repository or the revision is not there or may not be read, or has no such scores.
    """
    wanted = folder(config_name)
    with asking(repo_id, "The repository cannot be read", "Check its name and the revision. " + LOGIN):
        api = HfApi(token=token, library_name=LIBRARY)
        held = persistently(lambda: api.list_repo_files(repo_id, repo_type="dataset", revision=revision))
        if f"{wanted}/{JSON_NAME}" not in held or f"{wanted}/{ARRAYS_NAME}" not in held:
            others = sorted({path.split("/")[1] for path in held if re.fullmatch(rf"sage/[^/]+/{ARRAYS_NAME}", path)})
            raise HubError(
                f"The repository holds no scores of a configuration {config_name!r}",
                where=repo_id,
                fix=f"Use config_name={others[0]!r}." if others else "Name one that sage_hf pushed to.",
            )
        patterns = [f"{wanted}/{JSON_NAME}", f"{wanted}/{ARRAYS_NAME}"]
        root = persistently(
            lambda: snapshot_download(
                repo_id, repo_type="dataset", revision=revision, token=token, allow_patterns=patterns
            )
        )
    return Path(root) / wanted


class _Destination:
    """A revision of a repository; a pull request is made by the first commit, and the others go into it."""

    def __init__(self, api: HfApi, repo_id: str, revision: str | None, create_pr: bool) -> None:
        self.api, self.repo_id, self.revision, self.create_pr = api, repo_id, revision, create_pr
        self.pull_request: str | None = None

    def withdraw(self, config_name: str) -> None:
        """Takes the story of rows that are about to be replaced out of the card."""

        def operations(held: DatasetCard | None, _: list[str]) -> list[Any]:
            rest = withdraw(held, config_name) if held is not None else None
            return [] if rest is None else [CommitOperationAdd(README, str(rest).encode())]

        self._commit(operations, f"Withdraw the card of {config_name}, whose rows are being replaced")

    def push_rows(self, splits: DatasetDict, config_name: str, private: bool | None, marked: str) -> None:
        """All splits, by the way of datasets, in a commit whose description marks them."""
        self._follow(
            self._asked(
                lambda: splits.push_to_hub(
                    self.repo_id,
                    config_name,
                    private=private,
                    token=self.api.token,
                    revision=self.revision,
                    create_pr=self.create_pr,
                    commit_message="Rows chosen by sage_hf",
                    commit_description=marked,
                )
            )
        )

    def push_story(
        self, files: Path, config_name: str, make_card: Callable[[DatasetCard | None], DatasetCard]
    ) -> CommitInfo:
        """The card, the scores and the pictures, in one commit."""
        inside = folder(config_name)
        adds = {f"{inside}/{file.name}": file for file in sorted(files.iterdir())}

        def operations(held: DatasetCard | None, paths: list[str]) -> list[Any]:
            stale = [path for path in paths if path.startswith(f"{inside}/") and path not in adds]
            return [
                *(CommitOperationDelete(path) for path in stale),
                *(CommitOperationAdd(path, file) for path, file in adds.items()),
                CommitOperationAdd(README, str(make_card(held)).encode()),
            ]

        done = self._commit(operations, "Card and scores by sage_hf")
        assert done is not None
        return replace(done, pr_url=self.pull_request)

    def _commit(
        self, operations: Callable[[DatasetCard | None, list[str]], list[Any]], message: str
    ) -> CommitInfo | None:
        """Commits what follows from the card and the files that are there; None where it is nothing.

        A commit of somebody else's in between is seen, and what follows is made anew: it would be lost otherwise.
        """

        def commit() -> CommitInfo | None:
            there = self.api.dataset_info(self.repo_id, revision=self.revision)
            paths = [file.rfilename for file in there.siblings or []]
            made = operations(read_card(self.api, self.repo_id, there.sha) if README in paths else None, paths)
            if not made:
                return None
            return self.api.create_commit(
                self.repo_id,
                made,
                commit_message=message,
                repo_type="dataset",
                revision=self.revision,
                create_pr=self.create_pr,
                parent_commit=None if self.create_pr else there.sha,
            )

        done = self._asked(commit)
        if done is not None:
            self._follow(done)
        return done

    def _asked(self, commit: Callable[[], Any]) -> Any:
        """Asked again where the Hub fails; but what opens a pull request might open two."""
        return commit() if self.create_pr else persistently(commit, conflicts=True)

    def _follow(self, done: CommitInfo) -> None:
        if self.create_pr:
            self.revision, self.create_pr, self.pull_request = done.pr_revision, False, done.pr_url


def _splits(
    rows: Dataset, split: str, others: Mapping[str, Dataset | IterableDataset], place: Path
) -> dict[str, Dataset]:
    """All splits, with the same columns: the other ones' scores and row numbers are null."""
    if split in others:
        raise ConfigError(
            f"other_splits names {split!r}, which is the split of the kept rows",
            where="other_splits",
            fix="Leave it out.",
        )
    splits = {split: rows.with_format(None)}
    for name, held in others.items():
        made = to_disk(held, place / "splits") if isinstance(held, IterableDataset) else held.with_format(None)
        if SCORE_COLUMN in made.column_names:
            made = made.remove_columns(SCORE_COLUMN)
        for column, feature in rows.features.items():
            if isinstance(feature, ClassLabel) and column in made.column_names:
                made = with_class_names(made, {"column": column, "names": feature.names})
        if ROW_COLUMN not in made.column_names:
            made = made.add_column(ROW_COLUMN, [None] * len(made), feature=Value("int64"))
        made = made.add_column(SCORE_COLUMN, [None] * len(made), feature=Value("float32"))
        if made.features != rows.features:
            columns = {*made.features, *rows.features}
            differ = sorted(name for name in columns if made.features.get(name) != rows.features.get(name))
            raise DatasetError(
                f"The split {name!r} has other columns than the kept rows: they differ in {differ}",
                where=f"other_splits[{name!r}]",
                fix="Process all splits the same way and pass them, or pass other_splits={} to leave them out.",
            )
        splits[name] = made.select_columns(rows.column_names)
    return splits


def _source_splits(split: str, source: dict[str, Any], token: str | None) -> Mapping[str, Dataset | IterableDataset]:
    """The source's other splits, from where it came from."""
    names = [name for name in source["splits"] if name != split]
    if not names:
        return {}
    if source["id"] is None:
        raise DatasetError(
            f"The source has other splits ({', '.join(names)}), but it is not known where they are",
            where="other_splits",
            fix="Pass them as other_splits={name: dataset}, or other_splits={} to leave them out.",
        )
    try:
        return {
            name: load_dataset(source["id"], source["config"], split=name, revision=source["revision"], token=token)
            for name in names
        }
    except (OSError, ValueError, RuntimeError, DatasetsError, HTTPError) as error:
        raise DatasetError(
            f"The source's other splits ({', '.join(names)}) cannot be loaded: {first_line(error)}",
            where="other_splits",
            fix="Pass them as other_splits={name: dataset}, or other_splits={} to leave them out.",
        ) from error
