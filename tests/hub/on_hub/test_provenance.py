"""Models and datasets from the Hub are known by repository and commit; those from a folder by neither."""

from datasets import load_dataset
from transformers import ViTForImageClassification

from sage_hf.hub.provenance import describe_dataset, describe_model

from ...cases import image_rows, vit


def test_a_model_is_known_by_its_commit_while_the_cache_holds_one(hub):
    vit().push_to_hub("me/one")
    commit = hub.repos["model", "me/one"].sha("main")
    model = ViTForImageClassification.from_pretrained("me/one")
    assert describe_model(model) == {"class": "ViTForImageClassification", "id": "me/one", "revision": commit}
    vit(num_labels=4).push_to_hub("me/one")
    later = ViTForImageClassification.from_pretrained("me/one")
    assert describe_model(later)["id"] == "me/one"
    # Newer transformers keep no commit: which of the two this is cannot be told.
    assert describe_model(later)["revision"] in (None, hub.repos["model", "me/one"].sha("main"))


def test_a_model_of_a_folder_is_known_by_no_name(hub, tmp_path, monkeypatch):
    vit().push_to_hub("me/two")
    ViTForImageClassification.from_pretrained("me/two")
    monkeypatch.chdir(tmp_path)
    vit().save_pretrained("me/two")
    for path in ("me/two", tmp_path / "me/two"):
        assert describe_model(ViTForImageClassification.from_pretrained(path))["id"] is None
    assert describe_model(vit())["id"] is None


def test_a_dataset_is_known_by_its_commit_after_it_was_processed_and_as_a_stream(hub):
    image_rows(12).push_to_hub("me/rows", "small", split="validation")
    commit = hub.repos["dataset", "me/rows"].sha("main")
    rows = load_dataset("me/rows", "small", split="validation")
    wanted = {"id": "me/rows", "config": "small", "split": "validation", "splits": ["validation"], "revision": commit}
    assert {**wanted, "name": "rows"} == describe_dataset(rows)
    assert describe_dataset(rows.select(range(5)))["revision"] == commit
    stream = load_dataset("me/rows", "small", split="validation", streaming=True)
    told = describe_dataset(stream)
    assert (told["id"], told["revision"], told["split"]) == ("me/rows", commit, "validation")


def test_a_dataset_of_a_folder_is_known_by_no_repository(hub, tmp_path):
    image_rows(12).to_parquet(tmp_path / "rows.parquet")
    for streaming in (False, True):
        rows = load_dataset("parquet", data_files=str(tmp_path / "*.parquet"), split="train", streaming=streaming)
        told = describe_dataset(rows)
        assert (told["id"], told["revision"], told["name"]) == (None, None, None)
