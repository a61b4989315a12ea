"""A Space that shows a selection: from a folder beside this file, or from what `push_to_hub` pushed.

Set SELECTION to the name of the folder, or to "owner/name" of a dataset repository on the Hub, and DATASET to
"owner/name" of the dataset that was selected from, with DATASET_CONFIG and DATASET_SPLIT where they are needed.
"""

from __future__ import annotations

import os
from pathlib import Path

from datasets import Dataset, load_dataset

from sage_hf import Selection
from sage_hf.explorer import Offers, launch


def load_selection(name: str, source: Dataset | None) -> Selection:
    """The selection in a folder, with all strategies; of the Hub, with those that scores are enough for."""
    if Path(name).is_dir():
        return Selection.load_from_disk(name, source=source)
    return Selection.from_hub(name, source=source)


def load_source(name: str | None) -> Dataset | None:
    """All rows, without which only the kept ones of a folder can be looked at."""
    if not name:
        return None
    split = os.environ.get("DATASET_SPLIT", "train")
    return load_dataset(name, os.environ.get("DATASET_CONFIG"), split=split)


if __name__ == "__main__":
    selection = load_selection(os.environ.get("SELECTION", "selection"), load_source(os.environ.get("DATASET")))
    # Whoever opens the Space would push with its token: only a private one may set this.
    may_write = os.environ.get("MAY_WRITE") == "1"
    launch(selection, host=os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0"), offers=Offers(writes=may_write))
