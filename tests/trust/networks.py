"""Small networks at random: layers of every kind, used in every way that a model may use a layer.

A network is a chain of stages. Each has a layer that fits the shape that comes in, and a way to use it. Shapes are
without the batch: [F], [T, F], [C, H, W], [C, D, H, W].
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrizations, weight_norm
from torch.utils.checkpoint import checkpoint

WORDS, CLASSES, MOST = 11, 3, 60


class Pick:
    """Chance, as hypothesis draws it."""

    def __init__(self, draw):
        self._draw = draw

    def of(self, *options):
        return self._draw(st.sampled_from(options))

    def number(self, low, high):
        return self._draw(st.integers(low, high))

    def coin(self):
        return self._draw(st.booleans())


# ------------------------------------------------------------------------ layers, by the shape that they take
class Scale(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))

    def forward(self, x):
        return x * self.weight.tanh()


class OwnLinear(nn.Module):
    """Raw parameters in place of a layer."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.matrix, self.shift = nn.Parameter(torch.empty(outputs, inputs)), nn.Parameter(torch.empty(outputs))

    def forward(self, x):
        return F.linear(x, self.matrix) + self.shift


class Recurrent(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        if self.layer.batch_first:
            return self.layer(x)[0]
        return self.layer(x.transpose(0, 1))[0].transpose(0, 1)


class Attention(nn.Module):
    def __init__(self, layer, with_weights):
        super().__init__()
        self.layer, self.with_weights = layer, with_weights

    def forward(self, x):
        x = x if self.layer.batch_first else x.transpose(0, 1)
        out = self.layer(x, x, x, need_weights=self.with_weights)[0]
        return out if self.layer.batch_first else out.transpose(0, 1)


class Pair(nn.Module):
    """A layer of two inputs, which may be one tensor."""

    def __init__(self, size, outputs, same):
        super().__init__()
        self.layer, self.same = nn.Bilinear(size, size, outputs), same

    def forward(self, x):
        return self.layer(x, x if self.same else x.flip(-1))


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self, size):
        super().__init__()
        self.one, self.other = nn.Linear(size, size), nn.Linear(size, size, bias=False)
        self.other.weight = self.one.weight

    def forward(self, x):
        return self.other(torch.tanh(self.one(x)))


class Mixture(nn.Module):
    """Each position goes to one of two layers."""

    def __init__(self, size):
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(size, size) for _ in range(2)])

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        out, chosen = torch.zeros_like(flat), (flat.detach().sum(1) > 0).long()
        for number, expert in enumerate(self.experts):
            mine = chosen == number
            if mine.any():
                out[mine] = expert(flat[mine])
        return out.view_as(x)


def linear(pick, shape):
    return nn.Linear(shape[-1], pick.number(1, 5), bias=pick.coin())


def same_linear(pick, shape):
    return nn.Linear(shape[-1], shape[-1], bias=pick.coin())


def convolution(pick, shape):
    rank = len(shape) - 1
    groups = pick.of(*[g for g in (1, 2, 3) if shape[0] % g == 0])
    kind = [nn.Conv1d, nn.Conv2d, nn.Conv3d][rank - 1]
    kernel = [pick.number(1, min(3, size)) for size in shape[1:]]
    mode = pick.of("zeros", "zeros", "reflect", "replicate", "circular") if rank < 3 else pick.of("zeros", "circular")
    padding = [pick.number(0, min(2, size - 1)) for size in shape[1:]]
    stride, dilation = [pick.number(1, 2) for _ in kernel], [pick.number(1, 2) for _ in kernel]
    if word := pick.of("", "", "same", "valid"):
        padding, stride = word, [1] * rank if word == "same" else stride
    return kind(
        shape[0],
        groups * pick.number(1, 2),
        kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=pick.coin(),
        padding_mode=mode,
    )


def transposed_convolution(pick, shape):
    rank = len(shape) - 1
    kind = [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d][rank - 1]
    groups = pick.of(*[g for g in (1, 2) if shape[0] % g == 0])
    stride = pick.number(1, 2)
    return kind(
        shape[0],
        groups * pick.number(1, 2),
        pick.number(1, 3),
        stride=stride,
        padding=pick.number(0, 1),
        output_padding=pick.number(0, stride - 1),
        groups=groups,
        bias=pick.coin(),
        dilation=pick.number(1, 2),
    )


def layer_norm(pick, shape):
    return nn.LayerNorm(shape[-pick.number(1, len(shape)) :], bias=pick.coin())


def rms_norm(pick, shape):
    return nn.RMSNorm(shape[-pick.number(1, len(shape)) :], eps=pick.of(None, 0.1))


def batch_norm(pick, shape):
    kind = [nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d][len(shape) - 1]
    return kind(shape[0], track_running_stats=pick.of(True, True, True, False))


def group_norm(pick, shape):
    return nn.GroupNorm(pick.of(*[g for g in (1, 2, 3) if shape[0] % g == 0]), shape[0])


def instance_norm(pick, shape):
    kind = [nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d][len(shape) - 2]
    return kind(shape[0], affine=True, track_running_stats=pick.coin())


def recurrent(pick, shape):
    kind = pick.of(nn.RNN, nn.GRU, nn.LSTM)
    return Recurrent(
        kind(
            shape[-1],
            pick.number(1, 3),
            num_layers=pick.number(1, 2),
            batch_first=pick.coin(),
            bidirectional=pick.coin(),
            bias=pick.coin(),
        )
    )


def attention(pick, shape):
    heads = pick.of(*[h for h in (1, 2) if shape[-1] % h == 0])
    layer = nn.MultiheadAttention(shape[-1], heads, batch_first=pick.coin(), bias=pick.coin(), add_bias_kv=pick.coin())
    return Attention(layer, pick.coin())


def encoder(pick, shape):
    heads = pick.of(*[h for h in (1, 2) if shape[-1] % h == 0])
    return nn.TransformerEncoderLayer(shape[-1], heads, 4, batch_first=True, norm_first=pick.coin())


def normed(pick, shape):
    wrap = pick.of(parametrizations.weight_norm, parametrizations.spectral_norm, weight_norm, nn.utils.spectral_norm)
    layer = pick.of(linear, same_linear, *([convolution] if len(shape) > 1 else []))(pick, shape)
    return parametrizations.orthogonal(layer) if pick.of(*range(8)) == 7 else wrap(layer)


def bare(pick, shape):
    return pick.of(Scale(shape[-1]), Scale(), Scale(1), Scale(*shape), OwnLinear(shape[-1], pick.number(1, 4)))


def prelu(pick, shape):
    return nn.PReLU(pick.of(1, shape[0]))


def pair(pick, shape):
    return Pair(shape[-1], pick.number(1, 3), pick.coin())


def tied(pick, shape):
    return Tied(shape[-1])


def mixture(pick, shape):
    return Mixture(shape[-1])


ANY = [linear, linear, same_linear, layer_norm, rms_norm, batch_norm, group_norm, normed, bare, prelu, pair, tied]
LAYERS = {
    1: [*ANY, mixture],
    2: [*ANY, convolution, transposed_convolution, recurrent, attention, encoder, mixture, instance_norm],
    3: [*ANY, convolution, convolution, transposed_convolution, instance_norm],
    4: [*ANY, convolution, transposed_convolution, instance_norm],
}


# -------------------------------------------------------------- ways to use a layer, (layer, x, lengths) -> tensor
def plainly(layer, x, lengths):
    return layer(x)


def residual(layer, x, lengths):
    return x + layer(x)


def called_twice(layer, x, lengths):
    return layer(torch.tanh(layer(x)))


def summed(layer, x, lengths):
    return layer(x) + layer(x * 2)


def as_often_as_the_longest_row(layer, x, lengths):
    for step in range(int(lengths.max())):
        x = torch.where((step < lengths).reshape(-1, *[1] * (x.ndim - 1)), torch.tanh(layer(x)), x)
    return x


def relu_in_place(layer, x, lengths):
    return F.relu_(layer(x))


def arithmetic_in_place(layer, x, lengths):
    out = layer(x)
    out.mul_(0.7).add_(0.1)
    out += 0.5
    return out


def masked_in_place(layer, x, lengths):
    out = layer(x)
    return out.masked_fill_(torch.arange(out.shape[-1]) % 2 == 1, 0.3)


def written_to(layer, x, lengths):
    out = layer(x)
    out[..., 0] = out[..., 0] * 2
    return out


def input_made_in_place(layer, x, lengths):
    x = x * 1.0
    x.tanh_()
    return layer(x)


def input_changed_later(layer, x, lengths):
    x = x * 1.0
    out = layer(x)
    x.add_(1.0)
    return out


def checkpointed(layer, x, lengths):
    return checkpoint(layer, x, use_reentrant=False)


def checkpointed_reentrant(layer, x, lengths):
    return checkpoint(layer, x.requires_grad_() if x.is_leaf else x, use_reentrant=True)


def without_gradients(layer, x, lengths):
    with torch.no_grad():
        return layer(x)


def with_and_without_gradients(layer, x, lengths):
    with torch.no_grad():
        target = layer(x)
    return layer(x) * (1 + target)


def detached(layer, x, lengths):
    return layer(x.detach())


def cut_off(layer, x, lengths):
    return layer(x).detach()


def not_at_all(layer, x, lengths):
    return x


def non_contiguous(layer, x, lengths):
    return layer(x.transpose(1, -1).contiguous().transpose(1, -1))


def strided(layer, x, lengths):
    wide = torch.stack([x, -x], -1)
    return layer(wide[..., 0])


def of_a_view(layer, x, lengths):
    return layer(x.flip(1)).view(len(x), -1).unsqueeze(1).squeeze(1).contiguous()


def expanded(layer, x, lengths):
    return layer(x.narrow(1, 0, 1).expand_as(x))


def of_one_example_for_all(layer, x, lengths):
    return layer(x) + layer(x[:1])


def centred(layer, x, lengths):
    return layer(x - x.mean(0, keepdim=True) * 0.5)


def of_a_constant(layer, x, lengths):
    return layer(torch.linspace(-1, 1, x[0].numel(), dtype=x.dtype).reshape(1, *x.shape[1:])) + x.mean()


def of_a_constant_beside_rows(layer, x, lengths):
    constant = torch.linspace(-1, 1, x[0].numel(), dtype=x.dtype).reshape(1, *x.shape[1:])
    return layer(constant) + layer(x)


def of_an_expanded_constant(layer, x, lengths):
    constant = torch.linspace(-1, 1, x[0].numel(), dtype=x.dtype).reshape(1, *x.shape[1:])
    return layer(constant.expand_as(x)) * (1 + x.mean(tuple(range(1, x.ndim)), keepdim=True)).reshape(
        -1, *[1] * (layer(constant).ndim - 1)
    )


def row_by_row(layer, x, lengths):
    return torch.cat([layer(row[None]) for row in x])


def rows_reversed(layer, x, lengths):
    return layer(x.flip(0)).flip(0)


def rows_sorted(layer, x, lengths):
    order = lengths.argsort(descending=True, stable=True)
    return layer(x[order])[order.argsort()]


def doubled_batch(layer, x, lengths):
    both = layer(torch.cat([x, -x]))
    return both[: len(x)] - both[len(x) :] * 0.5


def interleaved_batch(layer, x, lengths):
    both = layer(torch.stack([x, -x], 1).flatten(0, 1)).unflatten(0, (len(x), 2))
    return both[:, 0] - both[:, 1] * 0.5


def some_rows(layer, x, lengths):
    chosen = lengths > 1
    out = x.clone()
    if chosen.any():
        out[chosen] = layer(x[chosen])
    return out


def from_user_hooks(layer, x, lengths):
    with (
        layer.register_forward_pre_hook(lambda module, args: (args[0] * 0.5, *args[1:])),
        layer.register_forward_hook(lambda module, args, output: output * 2 + 1),
    ):
        return layer(x)


def by_other_weights(layer, x, lengths):
    weights = {name: parameter * 2 for name, parameter in layer.named_parameters()}
    return functional_call(layer, weights, (x,))


def with_weight_decay(layer, x, lengths):
    return layer(x) + 0.1 * sum(parameter.square().sum() for parameter in layer.parameters())


def borrowed(layer, x, lengths):
    return layer(x) + sum(parameter.mean() for parameter in layer.parameters()) * x.mean(
        tuple(range(1, x.ndim)), keepdim=True
    ).reshape(-1, *[1] * (layer(x).ndim - 1))


def in_bfloat16(layer, x, lengths):
    with torch.autocast("cpu", torch.bfloat16):
        return layer(x).to(x.dtype)


def with_dropout(layer, x, lengths):
    return F.dropout(layer(F.dropout(x, 0.3, training=layer.training)), 0.3, training=layer.training)


def positions_as_rows(layer, x, lengths):
    return layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def positions_in_front(layer, x, lengths):
    return layer(x.transpose(0, 1).flatten(0, 1)).unflatten(0, (x.shape[1], len(x))).transpose(0, 1)


def positions_packed(layer, x, lengths):
    seen = torch.arange(x.shape[1]) < lengths.clamp(1, x.shape[1])[:, None]
    packed = layer(x[seen])
    out = packed.new_zeros(*x.shape[:2], *packed.shape[1:])
    out[seen] = packed
    return out


def positions_one_after_another(layer, x, lengths):
    return torch.stack([layer(part) for part in x.unbind(1)], 1)


def positions_in_parts(layer, x, lengths):
    return torch.cat([layer(part.flatten(0, 1)).unflatten(0, part.shape[:2]) for part in x.split(2, 1)], 1)


WAYS = [
    *(plainly, plainly, plainly, plainly, summed, relu_in_place, arithmetic_in_place, masked_in_place, written_to),
    *(input_made_in_place, input_changed_later, checkpointed, checkpointed_reentrant, without_gradients),
    *(with_and_without_gradients, detached, cut_off, non_contiguous, strided, of_a_view, expanded, with_dropout),
    *(of_one_example_for_all, centred, of_a_constant, of_a_constant_beside_rows, of_an_expanded_constant),
    *(row_by_row, rows_reversed, rows_sorted, doubled_batch, interleaved_batch, from_user_hooks, by_other_weights),
    *(with_weight_decay, borrowed, in_bfloat16, not_at_all),
]
# Of layers whose output has the shape of their input.
SQUARE_WAYS = [residual, called_twice, as_often_as_the_longest_row, some_rows]
# Of layers that take a position as a row.
FOLDED_WAYS = [
    *(positions_as_rows, positions_in_front, positions_packed, positions_one_after_another, positions_in_parts)
]


class Stage(nn.Module):
    def __init__(self, layer, way: Callable):
        super().__init__()
        self.layer, self.way = layer, way

    def forward(self, x, lengths):
        return torch.tanh(self.way(self.layer, x, lengths))


class Branches(nn.Module):
    """Stages beside each other, joined."""

    def __init__(self, stages):
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, x, lengths):
        return torch.cat([stage(x, lengths).flatten(1) for stage in self.stages], 1)


def shape_of(stage, shape):
    """The shape that a stage makes of another, without the batch; None where it takes none such."""
    try:
        with torch.no_grad():
            out = stage.eval()(torch.zeros(2, *shape), torch.tensor([1, 2]))
    except (RuntimeError, ValueError, AssertionError, IndexError, TypeError):
        return None
    usable = out.ndim > 1 and len(out) == 2 and 0 < out[0].numel() <= MOST and out.ndim <= 5
    return tuple(out.shape[1:]) if usable else None


def a_stage(pick, shape, depth=0):
    """A stage for a shape, and the shape that it makes."""
    if depth < 2 and pick.of(*range(8)) == 7:
        stages = [a_stage(pick, shape, depth + 1)[0] for _ in range(2)]
        branches = Branches(stages)
        if (after := shape_of(branches, shape)) is not None:
            return branches, after
    is_folded = len(shape) > 1 and pick.of(0, 0, 0, 1)
    inner = shape[1:] if is_folded else shape
    layer = pick.of(*LAYERS[len(inner)])(pick, inner)
    ways = FOLDED_WAYS if is_folded else WAYS + SQUARE_WAYS
    stage = Stage(layer, pick.of(*ways))
    after = shape_of(stage, shape)
    if after is None:  # the shape does not fit this way
        stage = Stage(nn.Linear(shape[-1], 3), plainly)
        after = shape_of(stage, shape)
    if after is None:
        stage, after = Stage(nn.Flatten(), plainly), (math.prod(shape),)
    return stage, after


SHAPES = [(3,), (4,), (3, 4), (2, 6), (5, 2), (2, 4, 4), (3, 3, 5), (4, 5, 3), (2, 3, 2, 3)]


# --------------------------------------------------- losses, (logits [B, ..., C], labels) -> [] or None
def of_the_library(logits, labels):
    """Logits alone: the library's own loss."""


def cross_entropy(logits, labels):
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=-100)


def summed_cross_entropy(logits, labels):
    return F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="sum")


def weighted_smoothed_cross_entropy(logits, labels):
    weight = torch.tensor([0.5, 1.0, 2.0], dtype=logits.dtype)
    return nn.CrossEntropyLoss(weight)(logits.flatten(0, -2), labels.flatten())


def smoothed_cross_entropy(logits, labels):
    return F.cross_entropy(logits.movedim(-1, 1), labels, label_smoothing=0.1)


def squared_error(logits, labels):
    return F.mse_loss(logits, F.one_hot(labels.clamp(min=0), CLASSES).to(logits.dtype))


def summed_squares(logits, labels):
    return nn.MSELoss(reduction="sum")(logits, F.one_hot(labels.clamp(min=0), CLASSES).to(logits.dtype)) / 3


def binary_cross_entropy(logits, labels):
    wanted = F.one_hot(labels.clamp(min=0), CLASSES).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=torch.tensor([1.0, 2.0, 3.0]).to(logits))


def by_hand(logits, labels):
    chosen = logits.log_softmax(-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    seen = (labels != -100).to(logits.dtype)
    return -(chosen * seen).sum() / seen.sum()


def two_parts(logits, labels):
    return cross_entropy(logits, labels) + 0.3 * squared_error(logits, labels)


def with_a_part_of_the_batch(logits, labels):
    return cross_entropy(logits, labels) + 0.1 * logits.mean(0).square().sum()


def divided_by_the_rows(logits, labels):
    return summed_cross_entropy(logits, labels) / len(logits)


def divided_by_the_labels(logits, labels):
    return summed_cross_entropy(logits, labels) / (labels != -100).sum()


def unreduced(logits, labels):
    values = F.cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none").view(labels.shape)
    return values.flatten(1).sum(1).mean() if values.ndim > 1 else values.mean()


LOSSES = [
    *(of_the_library, of_the_library, of_the_library, cross_entropy, cross_entropy, summed_cross_entropy),
    *(weighted_smoothed_cross_entropy, smoothed_cross_entropy, squared_error, summed_squares, binary_cross_entropy),
    *(by_hand, two_parts, with_a_part_of_the_batch, divided_by_the_rows, divided_by_the_labels, unreduced),
]


class Network(nn.Module):
    """Tokens or numbers to logits [B, C], or [B, T, C], and perhaps a loss."""

    def __init__(self, table, stages, head, loss):
        super().__init__()
        self.table, self.stages, self.head, self.loss = table, nn.ModuleList(stages), head, loss

    def forward(self, inputs, lengths, labels=None):
        x = inputs if self.table is None else self.table(inputs)
        for stage in self.stages:
            x = stage(x, lengths)
        logits = self.head(x)
        loss = None if labels is None else self.loss(logits, labels)
        return logits if loss is None else {"loss": loss, "logits": logits}


def a_table(pick):
    """What tokens are looked up in; a bag gives one vector a row."""
    size = pick.number(2, 5)
    if pick.of(*range(4)) == 3:
        return nn.EmbeddingBag(WORDS, size, mode=pick.of("sum", "mean", "max"), padding_idx=pick.of(None, 0))
    is_sparse = pick.of(False, False, True)
    return nn.Embedding(
        WORDS,
        size,
        padding_idx=pick.of(None, 0),
        max_norm=pick.of(None, None, 0.7),
        scale_grad_by_freq=not is_sparse and pick.coin(),
        sparse=is_sparse,
    )


def a_network(pick):
    """A network of up to four stages in float64, whose numbers are all random, and the shape of a row of its input."""
    shape = pick.of(*SHAPES, None, None)
    table = a_table(pick) if shape is None else None
    inner = shape or ((table.embedding_dim,) if isinstance(table, nn.EmbeddingBag) else (4, table.embedding_dim))
    stages = []
    for _ in range(pick.number(1, 4)):
        stage, inner = a_stage(pick, inner)
        stages.append(stage)
    again = shape_of(stages[0], inner)
    if again is not None and pick.of(*range(5)) == 4:  # the same one again
        stages, inner = [*stages, stages[0]], again
    by_position = len(inner) == 2 and pick.coin()
    head = nn.Linear(inner[-1], CLASSES)
    if not by_position:
        head = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(inner), CLASSES))
    network = Network(table, stages, head, pick.of(*LOSSES)).double()
    generator = torch.Generator().manual_seed(pick.number(0, 99))
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype).mul_(0.6))
        for name, buffer in network.named_buffers():
            if name.endswith("running_var"):
                buffer.abs_().add_(0.2)
    return network, shape, inner[:1] if by_position else ()


def a_batch(shape, label_shape, rows, seed):
    """Rows for a network; some labels are left out where a row has several."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randint(0, WORDS, (rows, 4), generator=generator)
    if shape is not None:
        inputs = torch.randn(rows, *shape, generator=generator, dtype=torch.float64)
    if seed % 2:  # not contiguous
        inputs = torch.stack([inputs, inputs], -1)[..., 0]
    labels = torch.randint(0, CLASSES, (rows, *label_shape), generator=generator)
    if label_shape:
        labels[:, 1:][torch.rand(labels[:, 1:].shape, generator=generator) < 0.4] = -100
    return {"inputs": inputs, "lengths": torch.randint(1, 4, (rows,), generator=generator), "labels": labels}
