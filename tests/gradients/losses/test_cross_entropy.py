import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from sage_hf.gradients.losses import cross_entropy
from sage_hf.gradients.losses.cross_entropy import token_cross_entropy


def both_ways(hidden, weight, targets, finish):
    """Losses and gradients at `hidden`, by torch and by blocks, weighted unevenly."""
    results = []
    for function in (
        lambda z: F.cross_entropy(z, targets, reduction="none"),
        lambda z: token_cross_entropy(z, targets, -100),
    ):
        leaf = hidden.clone().requires_grad_()
        losses = function(finish(leaf @ weight))
        (losses * torch.arange(1, len(losses) + 1)).sum().backward()
        results.append((losses.detach(), leaf.grad))
    return results


@pytest.mark.parametrize("finish", [lambda z: z, lambda z: 30 * torch.tanh(z / 30), lambda z: z.float().double()])
@given(rows=st.integers(1, 40), seed=st.integers(0, 999))
def test_losses_and_gradients_equal_those_of_torch(finish, rows, seed):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, 5, generator=generator, dtype=torch.float64) * 4
    weight = torch.randn(5, 17, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 17, (rows,), generator=generator)
    targets[::3] = -100
    (wanted, wanted_grad), (found, found_grad) = both_ways(hidden, weight, targets, finish)
    tolerance = 1e-5 if finish(torch.tensor(0.1, dtype=torch.float64)) != 0.1 else 1e-12
    assert torch.allclose(found, wanted, atol=tolerance)
    assert torch.allclose(found_grad, wanted_grad, atol=tolerance)


def test_blocks_do_not_show(monkeypatch):
    hidden, weight = torch.randn(50, 6), torch.randn(6, 32)
    targets = torch.randint(0, 32, (50,))
    monkeypatch.setattr(cross_entropy, "_BLOCK", {"cpu": 3 * 32})
    (wanted, wanted_grad), (found, found_grad) = both_ways(hidden, weight, targets, lambda z: z)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert torch.allclose(found_grad, wanted_grad, atol=1e-4)


def test_huge_logits_do_not_overflow():
    logits = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    losses = token_cross_entropy(logits * 1.0, torch.tensor([0]), -100)
    losses.sum().backward()
    assert losses.item() == 0
    assert logits.grad.isfinite().all()
