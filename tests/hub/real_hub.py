"""Pushes a selection to a private repository of the token's owner, reads it back, and deletes the repository.

Run by test_hub.py when SAGE_HF_TEST_TOKEN is set, with the token in HF_TOKEN.
"""

import uuid

from datasets import load_dataset
from huggingface_hub import DatasetCard, HfApi

from sage_hf import SageConfig, SageSelector, Selection
from tests.cases import image_rows, vit


def main():
    api = HfApi()
    name = f"{api.whoami()['name']}/sage-hf-test-{uuid.uuid4().hex[:8]}"
    rows = image_rows(40)
    config = SageConfig(fraction=0.3, sketch_size=8, batch_size=5, shard_size=8)
    selection = SageSelector(vit(), config=config, progress=False).select(rows)
    try:
        selection.push_to_hub(name, private=True, license="mit", other_splits={"test": image_rows(9, seed=2)})
        back = load_dataset(name)
        assert back["train"]["label"][:] == selection.dataset["label"][:]
        assert back["train"]["sage_score"][:] == selection.dataset["sage_score"][:]
        assert back["test"]["sage_score"][:] == [None] * 9
        scores = Selection.from_hub(name, rows)
        assert scores.scores.tolist() == selection.scores.tolist()
        card = DatasetCard.load(name)
        card.validate()
        assert "12 of the 40 rows" in card.text
    finally:
        api.delete_repo(name, repo_type="dataset", missing_ok=True)
    print("same rows and scores")


if __name__ == "__main__":
    main()
