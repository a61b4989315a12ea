import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sage_hf import per_example_loss
from sage_hf.errors import LabelError
from sage_hf.gradients.losses.per_example import NotSeparable
from sage_hf.training.loss import from_compute_loss_func

from ...cases import HEADS, head, llama, lm_batch
from ...reference import row


@pytest.mark.parametrize("kind", HEADS)
def test_the_losses_are_those_of_each_row_alone(kind):
    model, batch = head(kind)
    model.eval()
    wanted = torch.stack([model(**row(batch, index)).loss for index in range(4)])
    assert torch.allclose(per_example_loss(model, batch), wanted, rtol=1e-5, atol=1e-6)


def test_prompts_cost_no_logits():
    model, batch = llama().eval(), lm_batch(length=12)
    batch["labels"][:, :9] = -100
    per_example_loss(model, batch)  # finds out that the model's loss is the plain one
    seen = []
    model.lm_head.register_forward_hook(lambda module, args, output: seen.append(output.shape[1]))
    per_example_loss(model, batch)
    assert seen == [3]


class Weighted(nn.Module):
    """Class weights in the loss: the mean is weighted, too."""

    def __init__(self, weight, **options):
        super().__init__()
        self.layer, self.weight, self.options = nn.Linear(4, 3), weight, options

    def forward(self, inputs, labels):
        logits = self.layer(inputs)
        loss = F.cross_entropy(logits.reshape(-1, 3), labels.reshape(-1), weight=self.weight, **self.options)
        return {"loss": loss, "logits": logits}


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"reduction": "sum"}])
def test_class_weights_smoothing_and_sums_are_those_of_each_row_alone(options):
    torch.manual_seed(0)
    weight = None if "label_smoothing" in options else torch.tensor([1.0, 2.0, 5.0])
    model = Weighted(weight, **options)
    labels = torch.tensor([[0, 1, 2], [2, -100, 1]])
    if "label_smoothing" in options:
        labels = labels.clamp_min(0)
    batch = {"inputs": torch.randn(2, 3, 4), "labels": labels}
    wanted = torch.stack([model(**row(batch, index))["loss"] for index in range(2)])
    assert torch.allclose(per_example_loss(model, batch), wanted, atol=1e-6)


class Logits(nn.Module):
    def __init__(self, outputs=3):
        super().__init__()
        self.layer = nn.Linear(4, outputs)

    def forward(self, inputs):
        return {"logits": self.layer(inputs)}


@pytest.mark.parametrize(
    ("shape", "labels", "wanted"),
    [
        ((2, 4), torch.tensor([0, 2]), lambda z, y: F.cross_entropy(z, y, reduction="none")),
        (
            (2, 5, 4),
            torch.tensor([[0, 1, 2, -100, 1], [2, 2, -100, -100, 0]]),
            lambda z, y: torch.stack([F.cross_entropy(a, b) for a, b in zip(z, y, strict=True)]),
        ),
        ((2, 4), torch.randn(2, 3), lambda z, y: ((z - y) ** 2).mean(1)),
    ],
)
def test_logits_alone_get_the_loss_that_their_labels_ask_for(shape, labels, wanted):
    model, inputs = Logits(), torch.randn(shape)
    found = per_example_loss(model, {"inputs": inputs, "labels": labels})
    assert torch.allclose(found, wanted(model(inputs)["logits"], labels), atol=1e-6)


def test_labels_that_fit_no_loss_are_an_error_with_the_shapes():
    with pytest.raises(LabelError, match=r"shape \[2, 7\].*logits of shape \[2, 3\]"):
        per_example_loss(Logits(), {"inputs": torch.randn(2, 4), "labels": torch.zeros(2, 7)})
    with pytest.raises(LabelError, match="has no labels"):
        per_example_loss(Logits(), {"inputs": torch.randn(2, 4)})


def test_a_part_that_cannot_be_told_apart_makes_the_whole_inseparable():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, inputs, labels):
            logits = self.layer(inputs)
            flat = logits.reshape(-1)[:-1]
            return {"loss": F.cross_entropy(logits, labels) + F.mse_loss(flat, torch.zeros_like(flat))}

    with pytest.raises(NotSeparable):
        per_example_loss(Mixed(), {"inputs": torch.randn(4, 4), "labels": torch.tensor([0, 1, 2, 0])})


@pytest.mark.parametrize("rows", [1, 4])
def test_a_loss_function_that_looks_for_what_is_not_there_is_named(rows):
    model, batch = head("image")
    batch = {key: value[:rows] for key, value in batch.items()}
    for function, message in (
        (lambda outputs, batch: batch["nope"], r"loss_function fails: KeyError: 'nope' \[loss_function\].*'labels'"),
        (from_compute_loss_func(lambda outputs, *_, **__: outputs.nope), r"compute_loss_func fails: AttributeError"),
    ):
        with pytest.raises(LabelError, match=message):
            per_example_loss(model, batch, loss_function=function)


@pytest.mark.parametrize(
    ("loss", "what"), [(None, "None"), (1.0, "a float"), ([1.0], "a list"), ({"loss": torch.ones(4)}, "a dict")]
)
@pytest.mark.parametrize("rows", [1, 4])
def test_a_loss_function_that_returns_no_tensor_is_named(loss, what, rows):
    model, batch = head("image")
    batch = {key: value[:rows] for key, value in batch.items()}
    with pytest.raises(LabelError, match=rf"loss_function returned {what} .*\[loss_function\]"):
        per_example_loss(model, batch, loss_function=lambda outputs, batch: loss)
    function = from_compute_loss_func(lambda outputs, labels, num_items_in_batch: loss)
    with pytest.raises(LabelError, match=rf"compute_loss_func returned {what} .*\[compute_loss_func\]"):
        per_example_loss(model, batch, loss_function=function)
