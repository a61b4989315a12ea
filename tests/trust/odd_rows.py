"""Rows and a model whose gradients a test can make as odd as it likes."""

import torch
from datasets import ClassLabel, Dataset
from torch import nn
from torch.nn import functional as F

from sage_hf import SageConfig, SageSelector

WIDTH = 6
SMALL = {"batch_size": 8, "shard_size": 16, "sketch_size": 8, "recheck_every": 0, "fraction": 0.25}
NAN, INF = float("nan"), float("inf")
# What becomes of a row's gradient and of its loss.
UNUSABLE = {
    "nan gradient": (NAN, 0.0),
    "infinite gradient": (INF, 0.0),
    "nan loss": (1.0, NAN),
    "infinite loss": (1.0, -INF),
    "both": (NAN, NAN),
    "zero gradient": (0.0, 0.0),
}
ZERO = UNUSABLE["zero gradient"]


class Classifier(nn.Module):
    """A perceptron with logits of `classes` classes."""

    def __init__(self, classes=3):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh())
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        return {"logits": self.head(self.body(x.to(self.head.weight.dtype)))}


class Slope(torch.autograd.Function):
    """Losses as they are; their gradients times a number each."""

    @staticmethod
    def forward(ctx, losses, slopes):
        ctx.save_for_backward(slopes)
        return losses.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0], None


def loss_function(outputs, batch):
    losses = F.cross_entropy(outputs["logits"], batch["labels"], reduction="none")
    return Slope.apply(losses + batch["more"].to(losses), batch["slope"].to(losses))


def collate(rows):
    return {
        "x": torch.tensor([row["x"] for row in rows]),
        "labels": torch.tensor([row["label"] for row in rows]),
        "slope": torch.tensor([row["slope"] for row in rows]),
        "more": torch.tensor([row["more"] for row in rows]),
    }


def make_rows(count=48, classes=3, odd=None, seed=0, copies_of=None, labels=None):
    """Rows around a centre a class.

    Args:
        count: N.
        classes: Number of classes.
        odd: Row number to (slope, what is added to the loss).
        seed: Seed of the rows.
        copies_of: Number of rows that all are copies of; None makes every row for itself.
        labels: [N] classes; 0, 1, 2, 0, 1, ... by default.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = [number % classes for number in range(count)] if labels is None else labels
    x = torch.randn(count, WIDTH, generator=generator)
    centres = 2 * torch.randn(classes, WIDTH, generator=generator)
    places = torch.arange(count) if copies_of is None else torch.arange(count) % copies_of
    labels = [labels[place] for place in places]
    x = (x + centres[torch.arange(count) % classes])[places]
    changes = [(odd or {}).get(row, (1.0, 0.0)) for row in range(count)]
    rows = Dataset.from_dict(
        {
            "x": x.numpy(),
            "label": labels,
            "slope": [slope for slope, _ in changes],
            "more": [more for _, more in changes],
        }
    )
    return rows.cast_column("label", ClassLabel(names=[f"class {number}" for number in range(classes)]))


def selector(rows, model=None, resume_dir=None, cache_dir=None, **settings):
    """A selector of such rows."""
    model = model if model is not None else Classifier(max(2, rows.features["label"].num_classes))
    return SageSelector(
        model,
        data_collator=collate,
        loss_function=loss_function,
        config=SageConfig(**{**SMALL, **settings}),
        progress=False,
        resume_dir=resume_dir,
        cache_dir=cache_dir,
    )


def select(rows, is_stream=False, **settings):
    """What is selected of such rows, or of a stream of them."""
    return selector(rows, **settings).select(rows.to_iterable_dataset() if is_stream else rows)
