"""`trainer.push_to_hub()` pushes the kept rows and the model, and links them."""

import pytest
from datasets import load_dataset
from huggingface_hub import ModelCard
from transformers import ViTForImageClassification

from sage_hf import Selection
from sage_hf.errors import HubError

from ...cases import image_rows, vit
from ...training.runs import make, sage_args, train, weights


def trained(folder, rows=None, **settings):
    settings = {"sage_hub_dataset_id": "me/squares-kept", "sage_warmup_epochs": 1, **settings}
    args = sage_args(folder / "squares-vit", **settings)
    trainer = train(vit(), args, rows or image_rows(40), eval_dataset=image_rows(9))
    trainer.evaluate()
    return trainer


def test_both_are_pushed_and_the_models_card_links_the_rows_and_tells_results(hub, tmp_path):
    trainer = trained(tmp_path)
    trainer.push_to_hub(dataset="squares")
    rows = load_dataset("me/squares-kept", split="train")
    assert rows["sage_score"][:] == trainer.selection.dataset["sage_score"][:]
    assert Selection.from_hub("me/squares-kept").indices.tolist() == trainer.selection.indices.tolist()
    model = ViTForImageClassification.from_pretrained("me/squares-vit")
    assert float((weights(model) - weights(trainer.model)).abs().max()) == 0
    files = hub.files("me/squares-vit", kind="model")
    card = ModelCard(files["README.md"].decode())
    assert "[me/squares-kept](https://huggingface.co/datasets/me/squares-kept)" in card.text
    assert "me/squares-kept" in card.data.datasets
    (result,) = card.data.eval_results
    logged = next(entry for entry in reversed(trainer.state.log_history) if "eval_loss" in entry)
    assert (result.metric_type, result.metric_value) == ("loss", logged["eval_loss"])
    assert files["sage/scores.png"][:4] == b"\x89PNG"
    of_rows = hub.files("me/squares-kept")["README.md"].decode()
    assert "after 5 optimizer steps" in of_rows
    for path, content in files.items():
        assert b"hf_write" not in content, path
        assert path == "training_args.bin" or str(tmp_path).encode() not in content, path


def test_no_model_is_pushed_where_its_rows_could_not_be(hub, tmp_path):
    trainer = trained(tmp_path)
    hub.fail("POST", r"me/squares-kept\.git/info/lfs", times=-1, status=403)
    with pytest.raises(HubError, match="rows could not be pushed"):
        trainer.push_to_hub()
    assert ("model", "me/squares-vit") not in hub.repos


def test_without_a_name_for_the_rows_the_model_alone_is_pushed(hub, tmp_path):
    trainer = train(vit(), sage_args(tmp_path / "alone"), image_rows(40))
    trainer.push_to_hub()
    assert set(hub.repos) == {("model", "me/alone")}
    assert "agreement" in hub.files("me/alone", kind="model")["README.md"].decode()


def test_a_repository_with_other_rows_is_refused_before_training(hub, tmp_path):
    image_rows(12).push_to_hub("me/squares-kept")
    args = sage_args(tmp_path / "run", sage_hub_dataset_id="me/squares-kept", push_to_hub=True)
    with pytest.raises(HubError, match="other data"):
        make(vit(), args, image_rows(40))
