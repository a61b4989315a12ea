"""The shell's `sage-hf push`, and what `sage-hf select --push-to-hub` shares with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ..hub.files import read_scores
from .options import argument, option

if TYPE_CHECKING:
    from datasets import Dataset

    from ..selection.selection import Selection
    from ..selection.stream_selection import StreamSelection


@dataclass(frozen=True)
class PushOptions:
    """See their help."""

    folder: Path = argument("What `sage-hf select` or `Selection.save_to_disk` wrote.")
    repository: str = argument("Dataset repository: owner/name, or a name of your own.")
    private: bool | None = option(None, "Of a new repository; as your account has it.", flags="--private/--public")
    revision: str | None = option(None, "Branch to push to; made where it is not there.")
    create_pr: bool = option(False, "Open a pull request instead.")
    overwrite: bool = option(False, "Replace other data that is there.")
    config_name: str = option("default", "Configuration of the repository.")
    scores_only: bool = option(False, "Push no rows, but what others need to choose any share of them.")
    license: str | None = option(None, "Of what is pushed, such as apache-2.0; the source's by default.")
    source: str | None = option(None, "File, folder or Hub id with the other splits, where they are not known.")
    source_config: str | None = option(None, "The source's configuration on the Hub.")
    other_splits: bool = option(True, "Whether the source's other splits are pushed.")
    token: str | None = option(None, "Of the Hub; better log in, or set HF_TOKEN.", show_default=False)


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
        Console().print(f"Pushed: {commit.pr_url or commit.repo_url}", markup=False)
