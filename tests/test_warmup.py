import pytest
import torch

from examples.python_text import train_tokenizer
from sage_hf import SageConfig
from sage_hf.errors import ConfigError, DatasetError, LabelError
from sage_hf.warmup import warm_up

from .cases import image_rows, llama, token_rows, vit


def test_it_learns_and_takes_the_steps_that_it_was_asked_for():
    model, rows = vit(), image_rows(60)
    done = warm_up(model, rows, steps=40, learning_rate=1e-2)
    assert done.steps == 40
    batch = {"pixel_values": torch.tensor(rows["pixel_values"]), "labels": torch.tensor(rows["label"])}
    assert model.eval()(**batch).loss < done.loss < 1.2


def test_a_fraction_sees_that_share_once():
    assert warm_up(vit(), image_rows(60), fraction=0.5, batch_size=10).steps == 3


def test_the_same_seed_gives_the_same_weights_and_another_one_others():
    weights = []
    for seed in (0, 0, 1):
        model = vit()
        warm_up(model, image_rows(40), steps=3, learning_rate=1e-2, config=SageConfig(seed=seed))
        weights.append(model.classifier.weight.detach().clone())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_modes_and_random_state_come_back():
    model, state = vit(), torch.get_rng_state()
    model.eval()
    model.vit.embeddings.train()
    before = [module.training for module in model.modules()]
    warm_up(model, image_rows(20), steps=1)
    assert [module.training for module in model.modules()] == before
    assert torch.equal(torch.get_rng_state(), state)


def test_tokens_are_padded_as_for_the_selection():
    tokenizer = train_tokenizer(["a"], 260)
    assert warm_up(llama(), token_rows(), steps=2, processing_class=tokenizer).steps == 2


@pytest.mark.parametrize(
    "settings", [{}, {"steps": 1, "fraction": 0.5}, {"steps": 0}, {"fraction": 0.0}, {"fraction": 1.5}]
)
def test_impossible_lengths_are_refused(settings):
    with pytest.raises(ConfigError):
        warm_up(vit(), image_rows(20), **settings)


def test_an_empty_dataset_is_refused():
    with pytest.raises(DatasetError, match="no rows"):
        warm_up(vit(), image_rows(20).select([]), steps=1)


def test_a_row_that_cannot_be_used_is_named_by_its_number_in_the_dataset():
    rows = image_rows(60)
    rows = rows.remove_columns("label").add_column("label", [0] * 50 + [7] * 10)
    with pytest.raises(LabelError, match=r"label is 7.*10 rows, first 50, 51, 52, 53, 54"):
        warm_up(vit(), rows, fraction=1.0)
