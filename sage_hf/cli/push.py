"""The shell's `sage-hf push`, and what `sage-hf select --push-to-hub` shares with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..hub.files import read_scores
from ..utils.console import PlainConsole
from .options import argument, option

if TYPE_CHECKING:
    from datasets import Dataset

    from ..selection.selection import Selection
    from ..selection.stream_selection import StreamSelection


@dataclass(frozen=True)
class PushOptions:
    """See their help."""

    folder: Path = argument("Folder that `sage-hf select` or `Selection.save_to_disk` wrote.")
    repository: str = argument("Dataset repository: owner/name, or only a name under your own account.")
    private: bool | None = option(
        None, "Whether a new repository is private; your account's setting by default.", flags="--private/--public"
    )
    revision: str | None = option(None, "Branch to push to; created if it does not exist.")
    create_pr: bool = option(False, "Open a pull request instead.")
    overwrite: bool = option(False, "Replace existing data in the repository.")
    config_name: str = option("default", "Configuration of the repository to push to.")
    scores_only: bool = option(
        False, "Push only the scores, with which others can choose any share of the source's rows."
    )
    license: str | None = option(None, "Licence of what is pushed, such as apache-2.0; the source's by default.")
    source: str | None = option(None, "File, folder or Hub id of the other splits, if the selection does not know it.")
    source_config: str | None = option(None, "The source's configuration on the Hub.")
    other_splits: bool = option(True, "Whether the source's other splits are pushed, too.")
    token: str | None = option(
        None, "Token for the Hub; it is safer to log in, or to set HF_TOKEN.", show_default=False
    )


def push(options: PushOptions) -> None:
    """Push a selection to the Hub: rows, scores, and a card with pictures that tells how they were chosen.

    `sage-hf push imdb-10pct me/imdb-10pct --private`
    """
    facts = read_scores(options.folder)[1]
    from ..selection.selection import Selection
    from ..selection.stream_selection import StreamSelection

    push_selection(
        (StreamSelection if facts.get("kind") == "stream" else Selection).load_from_disk(options.folder), options
    )


def push_selection(selection: Selection | StreamSelection, options: PushOptions) -> None:
    """Pushes a selection and prints where to; splits that it knows nowhere on the Hub are loaded from the source."""
    from .rows import load_other_splits

    splits: dict[str, Dataset] | None = None if options.other_splits else {}
    origin = selection.stats.source
    if options.other_splits and options.source and (origin["id"] is None or Path(options.source).exists()):
        splits = load_other_splits(options.source, origin["split"] or "train", options.source_config)
    passed = ("config_name", "scores_only", "private", "revision", "create_pr", "overwrite", "token", "license")
    settings = {name: getattr(options, name) for name in passed}
    commit = selection.push_to_hub(options.repository, other_splits=splits, **settings)
    if commit is not None:  # of the main process
        PlainConsole().print(f"Pushed: {commit.pr_url or commit.repo_url}", markup=False)
