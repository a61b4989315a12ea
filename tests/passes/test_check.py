"""A row that the model fails on is named, and rows that are others in a batch are taken alone.

Whether they are met by the check, in a pass or by the reader of embeddings.
"""

import pickle

import pytest
import torch
from datasets import Dataset, IterableDataset
from torch import nn

from sage_hf import GradientCollector, SageConfig, SageSelector, diagnose, find_label_issues
from sage_hf.errors import GradientError

ROWS = 120


class Net(nn.Module):
    """A small classifier; `at` looks at the inputs first, and may fail."""

    def __init__(self, at):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.at = nn.Linear(4, 8), nn.Linear(8, 3), at

    def forward(self, inputs, labels=None):
        logits = self.head(torch.tanh(self.body(self.at(inputs))))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def forward_fails(inputs):
    if (inputs == 77).any():
        raise ValueError("nobody expects 77\nin two lines")
    return inputs


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs):
        ctx.save_for_backward(inputs)
        return inputs.clone()

    @staticmethod
    def backward(ctx, gradient):
        if (ctx.saved_tensors[0] == 77).any():
            raise RuntimeError("nobody expects 77")
        return gradient


def backward_fails(inputs):
    return _Backward.apply(inputs.requires_grad_())


def one_row_only(inputs):
    assert len(inputs) == 1, "one row at a time, please"
    return inputs


def rows_with(odd, count=ROWS):
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(count, 4, generator=generator), torch.arange(count) % 3
    inputs[odd, 0] = 77.0
    return Dataset.from_dict({"inputs": inputs.tolist(), "labels": labels.tolist()}).with_format("torch")


def choose(model, rows, **changes):
    config = SageConfig(**{"fraction": 0.1, "batch_size": 8, "shard_size": 32, **changes})
    return SageSelector(model, config=config).select(rows)


@pytest.mark.parametrize("strategy", ["auto", "agreement", "embedding_kmeans"])
@pytest.mark.parametrize("odd", [0, 50, ROWS - 1])
@pytest.mark.parametrize("at", [forward_fails, backward_fails])
def test_the_row_is_named_in_a_selection(at, odd, strategy):
    with pytest.raises(
        GradientError, match=f"Net fails on row {odd}, and not on others: nobody expects 77 "
    ) as caught:
        choose(Net(at), rows_with([odd]), strategy=strategy)
    assert caught.value.where == f"row {odd}" and "leave it out" in caught.value.fix
    assert isinstance(caught.value.__cause__, ValueError if at is forward_fails else RuntimeError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # as it goes to other processes


def test_the_row_of_a_stream_is_named():
    rows = rows_with([75]).with_format(None)
    stream = IterableDataset.from_generator(lambda: iter(rows), features=rows.features).with_format("torch")
    with pytest.raises(GradientError, match="fails on row 75, and not on others"):
        choose(Net(forward_fails), stream, fraction=None, num_examples=10, strategy="agreement")


@pytest.mark.parametrize("odd", [0, 50, ROWS - 1])
def test_the_row_is_named_where_label_issues_are_looked_for(odd):
    with pytest.raises(GradientError, match=f"Net fails on row {odd}, and not on others: nobody expects 77 "):
        find_label_issues(Net(forward_fails), rows_with([odd]))


def test_a_diagnosis_names_the_row_and_goes_on():
    found = diagnose(Net(forward_fails), rows_with([0]))
    assert any("fails on row 0" in problem.what for problem in found.problems)


def test_a_model_that_fails_on_all_rows_is_at_fault_and_no_row_is():
    with pytest.raises(GradientError, match="Net fails on one row in eval mode: nobody expects 77 ") as caught:
        choose(Net(forward_fails), rows_with(slice(None)))
    assert caught.value.where == "model.forward"


def test_a_model_that_takes_one_row_only_is_served_everywhere():
    rows = rows_with([])
    whole = choose(Net(lambda inputs: inputs), rows, strategy="agreement")
    alone = choose(Net(one_row_only), rows, strategy="agreement")
    assert alone.indices.tolist() == whole.indices.tolist()
    assert torch.allclose(torch.tensor(alone.scores), torch.tensor(whole.scores), atol=1e-5)
    assert find_label_issues(Net(one_row_only), rows).rows.tolist() == (
        find_label_issues(Net(lambda inputs: inputs), rows).rows.tolist()
    )


# ------------------------------------------------------------ other rows in a batch
def collate(rows):
    return {name: torch.stack([torch.as_tensor(row[name]) for row in rows]) for name in ("inputs", "labels")}


def turned(rows):
    return collate(rows[::-1])


def sorted_by_value(rows):
    return collate(sorted(rows, key=lambda row: float(row["inputs"][0])))


class Mixing(Net):
    """Each row sees the one before it in the batch."""

    def forward(self, inputs, labels=None):
        hidden = torch.tanh(self.body(inputs))
        logits = self.head(hidden + 0.8 * hidden.roll(1, 0) if len(hidden) > 1 else hidden)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class InATuple(Net):
    """A model that gives its loss and logits in a tuple, as those of transformers with return_dict=False."""

    def forward(self, inputs, labels=None):
        outputs = super().forward(inputs, labels)
        return outputs["loss"], outputs["logits"]


def plain():
    return Net(lambda inputs: inputs)


@pytest.mark.parametrize("collator", [turned, sorted_by_value])
@pytest.mark.parametrize("seed", range(3))
def test_a_collator_that_moves_rows_changes_no_selection_and_no_list(collator, seed, caplog):
    rows = rows_with([]).shuffle(seed=seed)
    config = SageConfig(fraction=0.2, batch_size=1)
    wanted = SageSelector(plain(), data_collator=collate, config=config).select(rows)
    found = SageSelector(plain(), data_collator=collator, config=SageConfig(fraction=0.2)).select(rows)
    assert torch.allclose(torch.tensor(found.scores), torch.tensor(wanted.scores), atol=1e-5)
    assert found.indices.tolist() == wanted.indices.tolist()
    assert "one at a time, which is right but slow" in caplog.text
    caplog.clear()
    wanted, found = (find_label_issues(plain(), rows, data_collator=each) for each in (collate, collator))
    assert torch.allclose(torch.tensor(found.label_doubt), torch.tensor(wanted.label_doubt), atol=1e-3)
    assert "Rows are read one at a time, which is right but slow" in caplog.text


def test_a_model_that_mixes_rows_gives_the_list_of_rows_alone(caplog):
    rows, model = rows_with([]), Mixing(None)
    alone = find_label_issues(model, rows, config=SageConfig(batch_size=1))
    assert "one at a time" not in caplog.text  # nothing to say
    batches = find_label_issues(model, rows, config=SageConfig(batch_size=16))
    assert torch.equal(torch.tensor(alone.label_doubt), torch.tensor(batches.label_doubt))
    assert "the model gives other embeddings of rows in a batch" in caplog.text


def test_outputs_in_a_tuple_give_the_same_doubts_at_every_batch_size():
    rows = rows_with([])
    wanted = choose(plain(), rows)
    for size in (1, 16):
        found = choose(InATuple(lambda inputs: inputs), rows, batch_size=size)
        assert torch.allclose(torch.tensor(found.label_doubts), torch.tensor(wanted.label_doubts), atol=1e-3)
        assert found.indices.tolist() == wanted.indices.tolist()


@pytest.mark.parametrize("at", [forward_fails, backward_fails])
def test_a_collector_says_that_a_row_alone_fails_and_goes_on_with_others(at):
    model = Net(at)
    collector, rows = GradientCollector(model), rows_with([2])
    with pytest.raises(GradientError, match="fails on one row in eval mode: nobody expects 77"):
        collector.collect(rows[:4])
    taken, losses = collector.collect(rows[3:7])
    wanted, wanted_losses = GradientCollector(Net(lambda inputs: inputs)).collect(rows[3:7])
    assert torch.allclose(taken, wanted, atol=1e-6) and torch.allclose(losses, wanted_losses, atol=1e-6)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.skipif(not hasattr(torch, "AcceleratorError"), reason="torch names it from 2.8 on")
def test_what_fails_in_the_device_is_no_row_s_fault():
    def device_fails(inputs):
        if (inputs == 77).any():
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")
        return inputs

    with pytest.raises(torch.AcceleratorError):
        choose(Net(device_fails), rows_with([50]))
