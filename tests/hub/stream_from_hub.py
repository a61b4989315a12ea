"""Run by test_streams.py, with HF_ENDPOINT at a fake Hub: push rows, select from their stream, push what was kept."""

import json

from datasets import load_dataset

from sage_hf import SageConfig, SageSelector
from tests.cases import image_rows, vit

SMALL = {"fraction": 0.3, "sketch_size": 8, "batch_size": 5, "shard_size": 8}


def main():
    rows = image_rows(70)
    rows.push_to_hub("me/rows", num_shards=3)
    stream = load_dataset("me/rows", split="train", streaming=True)
    config = SageConfig(**SMALL)
    selection = SageSelector(vit(), config=config, progress=False).select(stream)
    whole = SageSelector(vit(), config=config, progress=False).select(rows)
    selection.dataset.push_to_hub("me/kept")
    kept = load_dataset("me/kept", split="train")
    wanted = whole.dataset
    report = {
        "files": stream.num_shards,
        "same_rows": selection.indices.tolist() == whole.indices.tolist(),
        "same_scores": kept["sage_score"][:] == wanted["sage_score"][:],
        "same_labels": kept["label"][:] == wanted["label"][:],
        "features": list(kept.features),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
