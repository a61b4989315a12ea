"""What is no model, or none yet, is refused in every front door; a name says how to load what it names."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from torch import nn

from sage_hf import SageConfig, SageSelector, compare, diagnose, find_label_issues, warm_up
from sage_hf.errors import ConfigError, TargetError
from sage_hf.gradients.model.state import check_model

ROWS = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})


@pytest.mark.parametrize(
    "front_door",
    [
        SageSelector,
        lambda model: diagnose(model, ROWS),
        lambda model: find_label_issues(model, ROWS),
        lambda model: warm_up(model, ROWS, steps=1),
        lambda model: compare(model, ROWS, ROWS, model_init=lambda seed: model),
    ],
)
def test_the_name_of_a_model_is_told_how_to_load_it(front_door):
    with pytest.raises(ConfigError, match=r"AutoModelForCausalLM\.from_pretrained\('gpt2'\)") as caught:
        front_door("gpt2")
    assert "processing_class=AutoTokenizer.from_pretrained('gpt2')" in caught.value.fix
    with pytest.raises(ConfigError, match="The model is given by the name 'out"):
        front_door(Path("out"))
    with pytest.raises(ConfigError, match="A dict is not a model"):
        front_door({})


class Net(nn.Module):
    """Two layers, of which the second may be of any kind."""

    def __init__(self, second=None):
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), second or nn.Linear(8, 2)

    def forward(self, x, labels):
        logits = self.second(torch.tanh(self.first(x)))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


NUMBERS = Dataset.from_dict({"x": torch.randn(8, 4).tolist(), "labels": [0, 1] * 4})
SELECT = SageConfig(num_examples=2, strategy="agreement", gate=None, cache_gradients=None)


def select(model, target_modules="auto"):
    config = replace(SELECT, target_modules=target_modules)
    return SageSelector(model, config=config, progress=False).select(NUMBERS)


def made_in_inference_mode():
    with torch.inference_mode():
        return Net()


def scripted(*layers):
    return Net(nn.Sequential(torch.jit.script(nn.Sequential(*layers)), nn.Linear(8, 2)))


@pytest.mark.parametrize("front_door", [select, lambda model: warm_up(model, NUMBERS, steps=1)])
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: Net().to("meta"), r"on the meta device, so it has a shape and no numbers \[first.weight\]"),
        (lambda: Net(nn.LazyLinear(2)), r"A lazy layer has seen no batch yet, so it has no weights \[second.weight\]"),
        (made_in_inference_mode, r"made under torch.inference_mode.*\[first.weight\]"),
        (lambda: torch.jit.script(nn.Linear(4, 2)), r"The model is compiled by torch.jit.*\[model\]"),
        (lambda: scripted(nn.BatchNorm1d(8)), r"The layer is compiled by torch.jit.*\[second.0\]"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_model_that_is_not_ready_is_refused_by_its_weight_or_layer(front_door, model, message):
    with pytest.raises(ConfigError, match=message):
        front_door(model())


def test_a_traced_model_is_refused():
    model = torch.jit.trace(Net(), (torch.randn(2, 4), torch.tensor([0, 1])), strict=False)
    with pytest.raises(ConfigError, match=r"The model is compiled by torch\.jit"):
        select(model)


def test_a_compiled_layer_is_refused_only_where_it_is_targeted():
    with pytest.raises(TargetError, match=r"\['second.0.0.weight', .* torch.jit has compiled"):
        select(scripted(nn.Linear(8, 8)), "all")
    assert len(select(scripted(nn.Linear(8, 8)))) == 2


def test_a_copy_of_a_model_made_in_inference_mode_can_be_scored():
    assert len(select(copy.deepcopy(made_in_inference_mode()))) == 2


def test_a_buffer_that_is_not_saved_may_be_on_the_meta_device():
    model = Net()
    model.register_buffer("unused", torch.empty(3, device="meta"), persistent=False)
    check_model(model)
    model.register_buffer("saved", torch.empty(3, device="meta"))
    with pytest.raises(ConfigError, match=r"\[saved\]"):
        check_model(model)
