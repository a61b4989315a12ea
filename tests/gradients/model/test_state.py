"""What is no model is refused in every front door, and a name says how to load what it names."""

from pathlib import Path

import pytest
from datasets import Dataset

from sage_hf import SageSelector, compare, diagnose, find_label_issues, warm_up
from sage_hf.errors import ConfigError

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
