"""Losses of rows out of a forward that computes one loss of the batch, against rows alone."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sage_hf.errors import LabelError
from sage_hf.gradients import GradientCollector, per_example_loss
from sage_hf.gradients.losses.per_example import NotSeparable
from sage_hf.gradients.losses.row_ids import RowIds
from sage_hf.gradients.losses.rowwise import RowwiseLosses, is_by_row

from ...reference import relative_error, row


def rows_alone(model, batch):
    """Gradients [B, D] of all weights and losses [B], by autograd of one row after the other."""
    gradients, losses = [], []
    for index in range(len(batch["labels"])):
        loss = model(**row(batch, index))
        if not isinstance(loss, torch.Tensor):
            loss = loss["loss"] if isinstance(loss, dict) else min(loss, key=torch.Tensor.dim)
        found = torch.autograd.grad(loss, list(model.parameters()))
        gradients.append(torch.cat([each.flatten() for each in found]))
        losses.append(loss.detach())
    return torch.stack(gradients), torch.stack(losses)


def assert_rows_are_those_alone(collector, model, batch):
    rows, losses = collector.collect(batch)
    wanted, own = rows_alone(model, batch)
    assert relative_error(rows, wanted) < 1e-5
    assert torch.allclose(losses, own, atol=1e-6)


LENGTHS = torch.tensor([8, 5, 3, 4])  # 20 tokens: as many rows divide them, and of other lengths


class Tokens(nn.Module):
    """Scores every token of [B, T] ids, and leaves the loss to a function of (scores [B, T, 3], the batch)."""

    def __init__(self, loss):
        super().__init__()
        self.embed, self.layer, self.head = nn.Embedding(20, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.loss = loss

    def forward(self, input_ids, labels, attention_mask=None):
        scores = self.head(torch.tanh(self.layer(self.embed(input_ids))))
        return {"loss": self.loss(scores, labels, attention_mask), "logits": scores}


def token_batch():
    mask = (torch.arange(8) < LENGTHS[:, None]).long()
    labels = torch.randint(0, 3, (4, 8)).masked_fill(mask == 0, -100)
    return {"input_ids": torch.randint(0, 20, (4, 8)), "labels": labels, "attention_mask": mask}


def unpadded(scores, labels, mask):
    """Over the tokens of all rows that are no padding, as Electra's pretraining takes them."""
    active = mask.view(-1) == 1
    return F.cross_entropy(scores.view(-1, 3)[active], labels.view(-1)[active])


def chosen_by_index(scores, labels, mask):
    places = mask.flatten().nonzero().squeeze(1)
    return F.cross_entropy(scores.flatten(0, 1).index_select(0, places), labels.flatten().index_select(0, places))


def chosen_by_mask(scores, labels, mask):
    """Squared errors of what a mask selects, as SpeechT5 takes them."""
    seen = (mask == 1)[..., None]
    targets = F.one_hot(labels.clamp(min=0), 3).float()
    return F.mse_loss(scores.masked_select(seen), targets.masked_select(seen))


def several_grams(scores, labels, mask):
    """Two predictions a token with the n-gram first, as ProphetNet takes them."""
    targets = labels.new_zeros(2, *labels.shape).fill_(-100)
    for gram in range(2):
        targets[gram, :, :] = labels
    both = torch.stack([scores, scores * 2]).log_softmax(-1)
    return F.nll_loss(both.view(-1, 3), targets.view(-1), reduction="mean", ignore_index=-100)


def shifted(scores, labels, mask):
    labels = F.pad(labels, (0, 1), value=-100)[..., 1:].contiguous()
    return F.cross_entropy(scores.transpose(1, 2), labels.to(scores.device))


def parts(scores, labels, mask):
    first = F.cross_entropy(scores[:, 0], labels[:, 0])
    return (first * 0.5 + shifted(scores, labels, mask)) / 2


def divergence(scores, labels, mask):
    targets = F.one_hot(labels[:, 0], 3).float()
    return F.kl_div(scores.mean(1).log_softmax(-1), targets, reduction="batchmean")


@pytest.mark.parametrize(
    "loss",
    [unpadded, chosen_by_index, chosen_by_mask, several_grams, shifted, parts, divergence],
    ids=lambda loss: loss.__name__,
)
def test_rows_of_unequal_length_have_the_gradients_and_losses_that_they_have_alone(loss):
    model, batch = Tokens(loss).eval(), token_batch()
    collector = GradientCollector(model, target_modules="all", projection=None)
    assert_rows_are_those_alone(collector, model, batch)
    assert not collector.one_at_a_time


def plus_huber(scores, labels, mask):
    return shifted(scores, labels, mask) + (scores[:, 0, 0].abs() - 1).clamp(min=0).pow(2).mean()


def plus_entropy(scores, labels, mask):
    chances = scores.softmax(-1).mean((0, 1))
    return shifted(scores, labels, mask) - 0.1 * (-chances * chances.log()).sum()


def over_all_tokens(scores, labels, mask):
    """A sum divided by the tokens of the whole batch."""
    summed = F.cross_entropy(scores.view(-1, 3), labels.view(-1), reduction="sum")
    return summed / (labels != -100).sum()


def added_in_place(scores, labels, mask):
    total = scores.new_zeros(())
    total += shifted(scores, labels, mask)
    return total


def by_the_mean_loss(scores, labels, mask):
    loss = shifted(scores, labels, mask)
    return loss / loss.detach().mean() * 2 + loss


def broadcast(scores, labels, mask):
    return F.mse_loss(scores[:, 0, :1], labels[:, 0].float())


def row_against_row(scores, labels, mask):
    alike = (labels[:, :1] == labels[:, 0][None]).float()
    return F.binary_cross_entropy_with_logits(scores[:, 0] @ scores[:, 0].T, alike)


def in_batch_negatives(scores, labels, mask):
    return F.cross_entropy(scores[:, 0] @ scores[:, 1].T, torch.arange(len(scores))) + shifted(scores, labels, mask)


@pytest.mark.parametrize(
    "loss",
    [
        plus_huber,
        plus_entropy,
        over_all_tokens,
        added_in_place,
        by_the_mean_loss,
        broadcast,
        row_against_row,
        in_batch_negatives,
    ],
    ids=lambda loss: loss.__name__,
)
def test_a_part_that_is_of_the_batch_has_rows_taken_alone(loss):
    model, batch = Tokens(loss).eval(), token_batch()
    collector = GradientCollector(model, target_modules="all", projection=None)
    assert_rows_are_those_alone(collector, model, batch)
    assert collector.one_at_a_time


class Heads(nn.Module):
    """A body, and a loss of (its outputs [B, 3], the batch)."""

    def __init__(self, loss, as_tuple=False):
        super().__init__()
        self.body, self.loss, self.as_tuple = nn.Linear(5, 3), loss, as_tuple

    def forward(self, x, labels):
        scores = self.body(x)
        loss = self.loss(scores, labels)
        if self.as_tuple == "alone":
            return loss
        if self.as_tuple == "last":
            return scores, loss
        return (loss, scores) if self.as_tuple else {"loss": loss, "logits": scores}


LABELS = torch.tensor([0, 2, 1, 2, 0])
LOSSES = {
    "class weights": lambda s, y: F.cross_entropy(s, y, weight=torch.tensor([0.2, 1.0, 3.0]), label_smoothing=0.1),
    "class probabilities": lambda s, y: F.cross_entropy(s, (F.one_hot(y, 3) + 0.5).float().softmax(1)),
    "huber": lambda s, y: F.huber_loss(s[:, 0], y.float(), delta=0.3),
    "huber, weights": lambda s, y: F.huber_loss(
        s, F.one_hot(y, 3).float(), weight=torch.tensor([0.1, 1.0, 2.0]).expand_as(s)
    ),
    "squares, weights": lambda s, y: F.mse_loss(s, s.detach() * 0 + 1, weight=F.one_hot(y, 3) + 0.5),
    "smooth l1": lambda s, y: F.smooth_l1_loss(s[:, 0], y.float()),
    "bce": lambda s, y: F.binary_cross_entropy(s.sigmoid(), F.one_hot(y, 3).float()),
    "several labels": lambda s, y: F.multilabel_soft_margin_loss(s, F.one_hot(y, 3).float()),
    "multi margin": lambda s, y: F.multi_margin_loss(s, y),
    "soft margin": lambda s, y: F.soft_margin_loss(s[:, 0], y.float() * 2 - 1),
    "gaussian": lambda s, y: F.gaussian_nll_loss(s[:, 0], y.float(), s[:, 1].exp()),
    "poisson": lambda s, y: F.poisson_nll_loss(s[:, 0], y.float()),
    "divergence": lambda s, y: F.kl_div(s.log_softmax(1), F.one_hot(y, 3).float(), reduction="batchmean"),
    "cosine": lambda s, y: F.cosine_embedding_loss(s, F.one_hot(y, 3).float(), y.clamp(max=1) * 2 - 1),
    "sum": lambda s, y: F.cross_entropy(s, y, reduction="sum"),
}


@pytest.mark.parametrize("as_tuple", [False, True, "last", "alone"])
@pytest.mark.parametrize("kind", LOSSES)
def test_losses_of_torch_are_those_of_each_row_alone(kind, as_tuple):
    model = Heads(LOSSES[kind], as_tuple).eval()
    batch = {"x": torch.randn(5, 5), "labels": LABELS}
    collector = GradientCollector(model, target_modules="all", projection=None)
    assert_rows_are_those_alone(collector, model, batch)
    assert not collector.one_at_a_time


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_ctc_is_told_apart_into_rows(reduction):
    lengths = torch.tensor([2, 3, 1, 2])

    def loss(scores, labels):
        targets = labels.masked_select(labels >= 0)
        wide = scores[None].expand(6, -1, -1).log_softmax(-1)
        return F.ctc_loss(wide, targets, torch.full((len(scores),), 6), (labels >= 0).sum(-1), reduction=reduction)

    labels = torch.where(torch.arange(3) < lengths[:, None], 1 + torch.arange(12).reshape(4, 3) % 2, -100)
    model, batch = Heads(loss).eval(), {"x": torch.randn(4, 5), "labels": labels}
    collector = GradientCollector(model, target_modules="all", projection=None)
    assert collector.check(batch)
    assert_rows_are_those_alone(collector, model, batch)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 3), st.data())
def test_row_numbers_follow_what_is_done_to_a_tensor(rows, length, extra, data):
    tensor = torch.arange(rows * length * 2).reshape(rows, length, 2)
    number_of = {int(value): index for index in range(rows) for value in tensor[index].flatten()}
    steps = {
        "flatten": lambda x: x.flatten(0, 1) if x.ndim > 1 else x,
        "transpose": lambda x: x.transpose(0, -1),
        "reshape": lambda x: x.reshape(-1),
        "mask": lambda x: x[x % 3 > 0],
        "cut": lambda x: x[..., 1:] if x.shape[-1] > 1 else x,
        "stack": lambda x: torch.stack([x, x]),
        "to": lambda x: x.to(torch.int32).long(),
        "repeat": lambda x: x.repeat(2, *[1] * (x.ndim - 1)),
        "turn": lambda x: x.flip(0),
        "where": lambda x: torch.where(x > 0, x, 0),
    }
    with RowwiseLosses({"x": tensor}, rows, "mean") as mode:
        value = tensor
        for name in data.draw(st.lists(st.sampled_from(sorted(steps)), max_size=4)):
            value = steps[name](value)
    ids = mode._ids.of(value)
    assert ids is not None
    assert ids.flatten().tolist() == [number_of[int(each)] for each in value.flatten()]


def test_one_number_of_several_rows_is_none_of_a_row():
    labels = torch.arange(4)
    with RowwiseLosses({"labels": labels}, 4, "mean") as mode:
        count, each = (labels > 1).sum(), (labels[:, None] > 1).sum(1)
    assert mode._ids.is_statistic(count)
    assert mode._ids.of(each).tolist() == [0, 1, 2, 3]
    assert RowIds({"a table": torch.zeros(3, 4)}, 4).of(labels) is None


def test_row_numbers_in_order_are_known_from_others():
    assert is_by_row(torch.tensor([0, 0, 1, 1]), 2)
    assert not is_by_row(torch.tensor([0, 1, 0, 1]), 2)
    assert not is_by_row(torch.tensor([0, 0, 0, 1]), 2)


def test_a_loss_that_is_of_the_batch_is_said_to_be():
    model = Heads(lambda scores, labels: F.cross_entropy(scores, labels) + scores.mean())
    with pytest.raises(NotSeparable, match="a part of the loss is of the whole batch"):
        per_example_loss(model, {"x": torch.randn(5, 5), "labels": LABELS})


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (lambda loss, scores: {"total_loss": loss, "logits": scores}, r"returns \['total_loss'\] and no 'loss'"),
        (lambda loss, scores: {"losses": [loss], "logits": scores}, r"returns \['losses'\] and no 'loss'"),
        (lambda loss, scores: {"loss": {"a": loss}, "logits": scores}, "loss is a dict"),
    ],
)
def test_a_loss_under_another_name_is_an_error_and_not_ignored(named, said):
    class Named(Heads):
        def forward(self, x, labels):
            return named(*super().forward(x, labels))

    model = Named(LOSSES["sum"], as_tuple=True)
    with pytest.raises(LabelError, match=said):
        GradientCollector(model)({"x": torch.randn(5, 5), "labels": LABELS})


def test_of_several_numbers_in_a_tuple_the_loss_is_told_or_asked_for():
    class Several(Heads):
        def forward(self, x, labels):
            loss, scores = super().forward(x, labels)
            extra = (
                F.mse_loss(scores, scores * 0)
                if self.extra == "a loss"
                else (scores.argmax(1) == labels).float().mean()
            )
            return scores, extra, loss

    model, batch = Several(LOSSES["sum"], as_tuple=True).eval(), {"x": torch.randn(5, 5), "labels": LABELS}
    model.extra = "accuracy"
    collector = GradientCollector(model, projection=None)
    assert collector.check(batch)
    assert torch.allclose(collector.collect(batch)[1][0], model(**row(batch, 0))[2])
    model.extra = "a loss"
    with pytest.raises(LabelError, match="any of 2 numbers may be the loss"):
        GradientCollector(model)(batch)
