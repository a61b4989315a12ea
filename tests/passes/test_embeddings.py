import numpy as np
import pytest
import torch
from torch import nn
from transformers import RobertaConfig, RobertaForSequenceClassification, T5Config, T5ForConditionalGeneration

from sage_hf import GradientCollector, SageConfig, SageSelector
from sage_hf.errors import ConfigError
from sage_hf.passes.embeddings import EmbeddingReader
from sage_hf.passes.extractor import GradientExtractor

from ..cases import image_rows, llama, pad_tokens, token_rows, vit

CPU = torch.device("cpu")


def features(model, batch, device=CPU):
    """Embeddings, EL2N and doubts by a forward pass; the same out of the pass that makes gradients, nearly."""
    reader = EmbeddingReader(model, device, batch)
    alone = reader.forward(batch)
    if "labels" in batch:
        beside = GradientExtractor(GradientCollector(model), reader=reader).extract(batch).embedded
        for name in ("embeddings", "inputs", "el2n", "doubts"):
            assert torch.allclose(getattr(beside, name), getattr(alone, name), atol=1e-5, equal_nan=True), name
    return alone.embeddings, alone.el2n, alone.doubts


def test_a_classifiers_embedding_is_what_its_output_layer_sees():
    model, rows = vit().eval(), image_rows(6)
    batch = {"pixel_values": torch.tensor(rows["pixel_values"][:]), "labels": torch.tensor(rows["label"][:])}
    vectors, _, _ = features(model, batch, CPU)
    with torch.no_grad():
        hidden = model.vit(batch["pixel_values"]).last_hidden_state[:, 0]
    assert torch.allclose(vectors, hidden, atol=1e-6)


def test_el2n_is_the_length_of_the_error_of_the_probabilities():
    model, rows = vit().eval(), image_rows(6)
    labels = torch.tensor(rows["label"][:])
    labels[2] = -100
    batch = {"pixel_values": torch.tensor(rows["pixel_values"][:]), "labels": labels}
    _, el2n, doubts = features(model, batch, CPU)
    with torch.no_grad():
        error = model(batch["pixel_values"]).logits.softmax(1)
    assert el2n[2].isnan()
    for row in (0, 1, 3, 4, 5):
        wanted = error[row].clone()
        wanted[labels[row]] -= 1
        assert el2n[row] == pytest.approx(float(wanted.norm()), rel=1e-5)
        others = [float(p) for label, p in enumerate(error[row]) if label != labels[row]]
        own = float(error[row][labels[row]])
        assert doubts[row] == pytest.approx(max(others) / (max(others) + own), rel=1e-5)
    assert doubts[2].isnan()


def test_the_last_layer_of_a_head_of_several_layers_counts():
    config = RobertaConfig(
        vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=3
    )
    model = RobertaForSequenceClassification(config).eval()
    batch = {"input_ids": torch.randint(3, 50, (4, 7)), "labels": torch.tensor([0, 1, 2, 0])}
    vectors, _, _ = features(model, batch, CPU)
    with torch.no_grad():
        first = model.roberta(batch["input_ids"]).last_hidden_state[:, 0]
        wanted = torch.tanh(model.classifier.dense(first))
    assert torch.allclose(vectors, wanted, atol=1e-6)


def test_a_language_models_embedding_is_the_mean_over_its_own_tokens_whatever_the_padding():
    model = llama().eval()
    rows = [dict(row) for row in token_rows(6)]
    together, el2n, _ = features(model, pad_tokens(rows), CPU)
    alone = torch.cat([features(model, pad_tokens([row]), CPU)[0] for row in rows])
    assert torch.allclose(together, alone, atol=1e-5)
    with torch.no_grad():
        hidden = model.model(torch.tensor([rows[0]["input_ids"]])).last_hidden_state[0]
    assert torch.allclose(together[0], hidden.mean(0), atol=1e-5)
    assert el2n.isnan().all()


def test_an_encoder_decoder_shows_what_it_writes():
    config = T5Config(vocab_size=40, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    model = T5ForConditionalGeneration(config).eval()
    batch = {"input_ids": torch.randint(2, 40, (3, 6)), "labels": torch.randint(2, 40, (3, 4))}
    batch["labels"][1, 2:] = -100
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    vectors, _, _ = features(model, batch, CPU)
    with torch.no_grad():
        hidden = model(**batch, output_hidden_states=True).decoder_hidden_states[-1]
    # Tied embeddings scale what the output layer is given.
    assert torch.cosine_similarity(vectors[1], hidden[1, :2].mean(0), dim=0) > 1 - 1e-5


def test_the_model_comes_back_as_it_was():
    model = vit().train()
    rows = image_rows(4)
    batch = {"pixel_values": torch.tensor(rows["pixel_values"][:]), "labels": torch.tensor(rows["label"][:])}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    features(model, batch, CPU)
    assert model.training and all(module.training for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Strange(nn.Module):
    """A model that gives no embedding of a row: its only layer sees patches of another shape."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x, labels=None):
        return {"logits": self.layer(x.reshape(-1, 2)).reshape(len(x), -1)}


def test_a_model_without_embeddings_is_told_what_to_do():
    with pytest.raises(ConfigError, match="gives no embedding of a row"):
        features(Strange(), {"x": torch.randn(3, 4), "labels": torch.tensor([0, 1, 0])}, CPU)


def test_a_pass_reads_every_row_once_and_in_its_place():
    rows, model = image_rows(30), vit().eval()
    selector = SageSelector(model, config=SageConfig(sketch_size=8, batch_size=7, shard_size=12), progress=False)
    signals = selector.gather(rows, {"embeddings", "el2n"})
    batch = {"pixel_values": torch.tensor(rows["pixel_values"][:]), "labels": torch.tensor(rows["label"][:])}
    vectors, el2n, doubts = features(model, batch, CPU)
    assert np.allclose(signals.doubts, doubts.numpy(), atol=1e-5)
    largest = vectors.abs().amax(1, keepdim=True).numpy()
    assert (np.abs(signals.embeddings[np.arange(30)] - vectors.numpy()) <= 2**-10 * largest).all()
    assert np.allclose(signals.el2n, el2n.numpy(), atol=1e-5)
    assert signals.labels.tolist() == rows["label"][:]


@pytest.mark.parametrize("again", ["model", "head"])
def test_a_loss_that_calls_the_model_again_changes_no_embedding(again):
    model, rows = vit(), image_rows(30)

    def loss(outputs, batch):
        with torch.no_grad():
            if again == "model":
                model(pixel_values=torch.zeros_like(batch["pixel_values"]))
            else:
                model.classifier(torch.ones(len(batch["labels"]), model.classifier.in_features))
        return torch.nn.functional.cross_entropy(outputs.logits, batch["labels"], reduction="none")

    config = SageConfig(sketch_size=8, batch_size=7, shard_size=12)
    wanted = SageSelector(model, config=config, progress=False).gather(rows, {"embeddings"})
    found = SageSelector(model, config=config, loss_function=loss, progress=False).gather(rows, {"embeddings"})
    every = np.arange(30)
    assert np.allclose(found.embeddings[every], wanted.embeddings[every], atol=1e-3)
    assert np.allclose(found.doubts, wanted.doubts, atol=1e-5)


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("batch_size", [2, 3, 7])
def test_embeddings_are_the_rows_own_also_without_the_check(batch_size, checked):
    model, rows = vit().eval(), image_rows(20)
    config = SageConfig(sketch_size=8, batch_size=batch_size, shard_size=12, check_gradients=checked)
    signals = SageSelector(model, config=config, progress=False).gather(rows, {"embeddings"})
    batch = {"pixel_values": torch.tensor(rows["pixel_values"][:]), "labels": torch.tensor(rows["label"][:])}
    wanted = EmbeddingReader(model, CPU, batch).forward(batch).embeddings.numpy()
    assert np.allclose(signals.embeddings[np.arange(20)], wanted, atol=2e-3)


def test_an_encoder_decoders_positions_are_those_that_it_writes_also_where_both_sides_are_as_long():
    config = T5Config(vocab_size=40, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    model = T5ForConditionalGeneration(config).eval()
    batch = {"input_ids": torch.randint(2, 40, (3, 6)), "labels": torch.randint(2, 40, (3, 6))}
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    batch["attention_mask"][0, 2:] = 0
    batch["labels"][1, 2:] = -100
    together, _, _ = features(model, batch)
    alone = torch.cat([features(model, {k: v[row : row + 1] for k, v in batch.items()})[0] for row in range(3)])
    assert torch.allclose(together, alone, atol=1e-5)


class OneRow(nn.Module):
    """A model that takes one row at a time."""

    def __init__(self):
        super().__init__()
        self.model = vit()

    def forward(self, pixel_values, labels=None):
        if len(pixel_values) > 1:
            raise ValueError("one row only")
        return self.model(pixel_values=pixel_values, labels=labels)


def test_a_model_that_takes_one_row_has_embeddings_too():
    selection = SageSelector(OneRow(), config=SageConfig(fraction=0.3), progress=False).select(image_rows(30))
    assert len(selection) == 9


def test_inputs_beside_embeddings_have_one_width_whatever_a_batch_holds():
    class Means(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(1, 2)

        def forward(self, series, labels=None):
            return {"logits": self.head(series.mean(1, keepdim=True))}

    reader = EmbeddingReader(Means(), CPU, {"series": torch.randn(4, 20)})
    assert reader.input_width == 20
    for length in (8, 20, 700):
        inputs = reader.forward({"series": torch.randn(3, length)}).inputs
        assert inputs.shape == (3, 20) and inputs.any()
