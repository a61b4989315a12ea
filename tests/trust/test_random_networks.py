"""Gradients of random networks against autograd of each row alone."""

import random
from contextlib import contextmanager

import numpy as np
import torch
from hypothesis import HealthCheck, assume, event, given, note, settings
from hypothesis import strategies as st
from torch import nn

from sage_hf.errors import SageError
from sage_hf.gradients import GradientCollector
from sage_hf.gradients.layers.projection import projection_matrix

from .networks import Pick, a_batch, a_network
from .scale import cases, tried


def row(batch, index):
    return {name: value[index : index + 1] for name, value in batch.items()}


def loss_of(model, batch, reduction="mean"):
    """The loss of a batch of one: the network's own, or the cross-entropy of its logits."""
    outputs = model(**batch)
    if not isinstance(outputs, torch.Tensor):
        return outputs["loss"]
    return nn.functional.cross_entropy(outputs.flatten(0, -2), batch["labels"].flatten(), reduction=reduction)


@contextmanager
def put_back(model):
    """The numbers, flags and modes of a model come back."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    numbers = [(tensor, tensor.detach().clone()) for tensor in (*model.parameters(), *model.buffers())]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, requires_grad, grad in flags:
            parameter.requires_grad_(requires_grad)
            parameter.grad = grad
        for tensor, value in numbers:
            tensor.data.copy_(value)


def truth(model, batch):
    """Losses [B] and gradients [B, ...] of every parameter by name, of rows alone, by autograd."""
    losses, gradients = [], {name: [] for name, _ in model.named_parameters()}
    for index in range(len(batch["labels"])):
        with put_back(model), torch.random.fork_rng():
            model.eval().requires_grad_(True).zero_grad()
            loss = loss_of(model, row(batch, index))
            if loss.requires_grad:
                loss.backward()
            for name, parameter in model.named_parameters():
                grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                gradients[name].append(grad.to_dense() if grad.is_sparse else grad)
        losses.append(loss.detach())
    return torch.stack(losses), {name: torch.stack(each).detach() for name, each in gradients.items()}


def truth_or_none(model, batch):
    """The truth; None where the model computes nothing of a row alone, or cannot be differentiated."""
    try:
        return truth(model, batch)
    except (RuntimeError, ValueError):
        return None


def as_block(block, gradients):
    """Gradients [B, ...] of a parameter, narrowed by the matrices of the block."""
    blocks = gradients.reshape(len(gradients), *block.shape)
    for side, axis in (("left", 0), ("right", 1)):
        if block.widths[axis] < block.shape[axis]:
            matrix = projection_matrix(block.name, side, block.shape[axis], block.widths[axis], block.seed).double()
            blocks = torch.tensordot(blocks, matrix, ([axis + 1], [0])).movedim(-1, axis + 1)
    return blocks.flatten(1)


def state_of(model):
    """All that a visitor could leave changed, in the model and around it."""
    modules = list(model.modules())
    return {
        "modes": [module.training for module in modules],
        "trainable": [parameter.requires_grad for parameter in model.parameters()],
        "parameters": [id(parameter) for parameter in model.parameters()],
        "weights": [parameter.detach().clone() for parameter in model.parameters()],
        "buffers": [(name, id(each), each.clone()) for name, each in model.named_buffers()],
        "gradients": [(id(p.grad), None if p.grad is None else p.grad.clone()) for p in model.parameters()],
        "hooks": [
            {n: list(v) for n, v in vars(m).items() if n.endswith(("_hooks", "_hooks_with_kwargs"))} for m in modules
        ],
        "tensor hooks": [len(p._backward_hooks or ()) for p in model.parameters()],
        "attributes": [sorted(vars(module)) for module in modules],
        "random": (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()),
        "modes of torch": (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"),
        ),
    }


def assert_same(one, other, where=""):
    if isinstance(one, torch.Tensor):
        assert one.shape == other.shape and one.dtype is other.dtype, where
        assert bool(((one == other) | ((one != one) & (other != other))).all()), where
    elif isinstance(one, np.ndarray):
        assert (one == other).all(), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key, value in one.items():
            assert_same(value, other[key], f"{where} {key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for place, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where} {place}")
    else:
        assert one == other, where


def wrong_rows(collector, batch, wanted_losses, wanted):
    """Which rows of a batch are not those of autograd, and how they were taken: rows [B, D] and losses [B]."""
    rows, losses = collector.collect(batch)
    blocks = {block.name: as_block(block, wanted[block.name]) for block in collector.blocks}
    lengths = torch.cat(list(blocks.values()), 1).norm(dim=1)
    wrong = ~torch.isclose(losses.double(), wanted_losses, rtol=1e-3, atol=1e-5)
    for block in collector.blocks:
        if block.name in collector.left_out:
            assert not rows[:, block.columns].any()
            continue
        off = (rows[:, block.columns] - blocks[block.name]).norm(dim=1)
        wrong |= off > TOLERANCE * (blocks[block.name].norm(dim=1) + 1e-3 * lengths) + 1e-12
    return wrong.nonzero().flatten().tolist(), rows, losses


TOLERANCE = 1e-4


@settings(max_examples=cases(20, 1500), suppress_health_check=list(HealthCheck), deadline=None)
@given(st.data())
def test_rows_equal_those_of_autograd_or_an_error_says_why_and_the_model_comes_back(data):
    tried()
    pick = Pick(data.draw)
    model, shape, label_shape = a_network(pick)
    note(str(model))
    note([getattr(stage, "way", stage) for stage in model.stages] + [model.loss])
    if pick.of(0, 0, 1):
        for parameter in model.parameters():
            parameter.requires_grad_(pick.coin())
    for module in model.modules():
        module.training = pick.coin()
    for parameter in list(model.parameters())[:3]:
        parameter.grad = torch.ones_like(parameter)
    first, second = (
        a_batch(shape, label_shape, rows, pick.number(0, 99)) for rows in (pick.number(2, 5), pick.number(1, 6))
    )
    wanted_of_first = truth_or_none(model, first)
    known = [index for index in range(len(second["labels"])) if truth_or_none(model, row(second, index))]
    before = state_of(model)
    try:
        collector = GradientCollector(
            model,
            target_modules=pick.of("all", "all", "all", "auto", "last", "head", ["head"]),
            projection=pick.of(None, None, 1, 2),
        )
        collector.check(first)
        assert wanted_of_first, "rows of a model that has no gradients of them"
        wrong, _, _ = wrong_rows(collector, first, *wanted_of_first)
        assert not wrong
        if len(known) < len(second["labels"]):
            # Torch refuses a GroupNorm of one value a group of a row alone, and takes it among others.
            event("a later row alone has no gradients")
            collector.collect(second)
            assert not collector.one_at_a_time, "rows taken alone that have no gradients alone"
            second = {name: value[known] for name, value in second.items()}
            assume(known)
        # A branch that no row of the check has taken may be wrong; a pass then finds it by looking again.
        wrong, rows, losses = wrong_rows(collector, second, *truth(model, second))
        for index in wrong:
            event("wrong in a branch that the check has not seen, and found when looked at again")
            assert collector.compare(row(second, index), rows[index], losses[index])
        event(
            "alone by autograd"
            if collector.layout.alone
            else "left out"
            if collector.left_out
            else "one at a time"
            if collector.one_at_a_time
            else "whole batches"
        )
    except SageError as error:
        event(f"{type(error).__name__}")
        note(repr(error))
    assert_same(before, state_of(model))
