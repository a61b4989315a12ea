"""Every rule against batch-of-1 autograd, in float64."""

import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.pytorch_utils import Conv1D

from sage_hf import GradientCollector
from sage_hf.gradients.layers.projection import projection_matrix
from sage_hf.gradients.layers.rules import RULES, rerun, rule_for

from ...cases import OneLayer
from ...reference import per_example_gradients, relative_error

IMAGE, SEQUENCE, TOKENS = (5, 4, 9, 8), (5, 4, 11), (5, 7, 6)


def images():
    return torch.randn(IMAGE, dtype=torch.float64)


def sequences():
    return torch.randn(SEQUENCE, dtype=torch.float64)


def tokens():
    return torch.randn(TOKENS, dtype=torch.float64)


def ids():
    return torch.randint(0, 6, (5, 7))


CASES = {
    "linear over tokens": (lambda: nn.Linear(6, 4), tokens),
    "linear over one vector": (lambda: nn.Linear(6, 4, bias=False), lambda: tokens()[:, 0]),
    "linear over a grid": (lambda: nn.Linear(8, 3), images),
    "Conv1D of transformers": (lambda: Conv1D(4, 6), tokens),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3), sequences),
    "conv1d strided, padded, dilated": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2), sequences),
    "conv1d grouped": (lambda: nn.Conv1d(4, 6, 3, groups=2), sequences),
    "conv1d depthwise same": (lambda: nn.Conv1d(4, 4, 4, groups=4, padding="same"), sequences),
    "conv1d circular": (lambda: nn.Conv1d(4, 2, 3, padding=1, padding_mode="circular"), sequences),
    "conv2d": (lambda: nn.Conv2d(4, 3, (3, 2)), images),
    "conv2d strided, padded, dilated": (
        lambda: nn.Conv2d(4, 3, 3, stride=(2, 1), padding=(1, 2), dilation=(1, 2)),
        images,
    ),
    "conv2d grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2, bias=False), images),
    "conv2d patches": (lambda: nn.Conv2d(4, 6, 3, stride=3), images),
    "conv2d same": (lambda: nn.Conv2d(4, 3, (2, 3), padding="same"), images),
    "conv2d reflect": (lambda: nn.Conv2d(4, 3, 3, padding=(1, 2), padding_mode="reflect"), images),
    "embedding": (lambda: nn.Embedding(6, 4), ids),
    "embedding with padding": (lambda: nn.Embedding(6, 4, padding_idx=2), ids),
    "layer norm": (lambda: nn.LayerNorm(6), tokens),
    "layer norm over two axes": (lambda: nn.LayerNorm((9, 8)), images),
    "layer norm without bias": (lambda: nn.LayerNorm(6, bias=False), tokens),
    "rms norm": (lambda: nn.RMSNorm(6), tokens),
    "rms norm with eps": (lambda: nn.RMSNorm(6, eps=0.1), tokens),
}


def model_and_batch(name, calls=1):
    make, inputs = CASES[name]
    torch.manual_seed(1)
    example = inputs()
    model = OneLayer(make(), example, calls)
    for parameter in model.parameters():  # norms start at ones, biases at zeros
        nn.init.normal_(parameter)
    return model, {"inputs": example, "labels": torch.tensor([0, 1, 2, 1, 0])}


@pytest.mark.parametrize("name", CASES)
def test_exact_rows_equal_one_row_at_a_time(name):
    model, batch = model_and_batch(name)
    collector = GradientCollector(model, target_modules="all", projection=None)
    wanted = per_example_gradients(model, batch, [block.name for block in collector.blocks])
    assert collector.width == sum(p.numel() for p in model.parameters())
    assert relative_error(collector(batch), wanted) < 1e-10
    assert not collector.one_at_a_time


@pytest.mark.parametrize("side", [1, 2, 3])
@pytest.mark.parametrize("name", CASES)
def test_projected_rows_equal_the_projected_truth(name, side):
    model, batch = model_and_batch(name)
    collector = GradientCollector(model, target_modules="all", projection=side, seed=5)
    wanted = []
    for block in collector.blocks:
        exact = per_example_gradients(model, batch, [block.name]).unflatten(1, block.shape)
        for index, label in enumerate(("left", "right")):
            if block.widths[index] < block.shape[index]:
                matrix = projection_matrix(block.name, label, block.shape[index], block.widths[index], 5).double()
                exact = torch.einsum("brc,rk->bkc" if label == "left" else "brc,ck->brk", exact, matrix)
        wanted.append(exact.flatten(1))
    assert collector.width < sum(p.numel() for p in model.parameters()) or side == 3
    assert relative_error(collector(batch), torch.cat(wanted, 1)) < 1e-10


@pytest.mark.parametrize("name", ["layer norm", "rms norm", "conv1d depthwise same"])
def test_a_layer_called_several_times_adds_up(name):
    model, batch = model_and_batch(name, calls=3)
    collector = GradientCollector(model, target_modules="all", projection=None)
    wanted = per_example_gradients(model, batch, [block.name for block in collector.blocks])
    assert relative_error(collector(batch), wanted) < 1e-10


class Tied(nn.Module):
    """An embedding whose table is also the output layer."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight
        self.double()

    def forward(self, inputs):
        return self.head(torch.tanh(self.embed(inputs)).mean(1))


@pytest.mark.parametrize("projection", [None, 3])
@pytest.mark.parametrize("targets", ["all", ["embed"], ["head"]])
def test_tied_weights_add_up_whichever_name_is_targeted(targets, projection):
    model, batch = Tied(), {"inputs": ids(), "labels": torch.tensor([0, 1, 2, 3, 4])}
    collector = GradientCollector(model, target_modules=targets, projection=projection)
    assert [block.name for block in collector.blocks] == ["embed.weight"]
    wanted = per_example_gradients(model, batch, ["embed.weight"])
    if projection:
        block = collector.blocks[0]
        left, right = (block.matrix(side, wanted) for side in ("left", "right"))
        wanted = torch.einsum("brc,rk,cm->bkm", wanted.unflatten(1, (6, 4)), left, right).flatten(1)
    assert relative_error(collector(batch), wanted) < 1e-10


class Folded(nn.Module):
    """Sees three choices of a row as rows of their own, as multiple-choice models do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 1)
        self.double()

    def forward(self, inputs):
        return self.layer(torch.sin(inputs).reshape(-1, 6)).reshape(-1, 3)


def test_rows_folded_into_the_batch_axis_come_apart_again():
    model = Folded()
    batch = {"inputs": torch.randn(5, 3, 6, dtype=torch.float64), "labels": torch.tensor([0, 1, 2, 1, 0])}
    collector = GradientCollector(model, target_modules="all", projection=None)
    wanted = per_example_gradients(model, batch, [block.name for block in collector.blocks])
    assert relative_error(collector(batch), wanted) < 1e-10


def test_an_rms_norm_of_a_model_file_is_known_by_its_name_and_others_are_not():
    class MyNorm(nn.Module):
        pass

    assert rule_for(LlamaRMSNorm(4)) is rule_for(nn.RMSNorm(4))
    assert rule_for(MyNorm()) is rerun
    assert all(rule_for(kind.__new__(kind)) is rule for kind, rule in RULES.items())
