"""The command that a card tells gives the shell the settings of the selection."""

import shlex
from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command

from sage_hf import SageConfig
from sage_hf.cli.main import app
from sage_hf.cli.options import Inputs
from sage_hf.cli.reproduce import select_command
from sage_hf.utils.setting_text import from_text


def parse(command):
    """The config that `sage-hf select` makes of a command."""
    select = get_command(app).commands["select"]
    context = select.make_context("select", command[2:])
    plain = {name: getattr(value, "value", value) for name, value in context.params.items()}
    return SageConfig(**{each.name: from_text(each.name, plain[each.name]) for each in fields(SageConfig)}), plain


SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "fraction": st.floats(0.001, 1.0),
        "sketch_size": st.integers(1, 512),
        "strategy": st.sampled_from(["agreement", "random"]),
        "group_by": st.sampled_from(["auto", "label", "a column", None]),
        "balance": st.sampled_from(["equal", "none"]),
        "target_modules": st.sampled_from(["all", "last", ["q_proj", "v_proj"]]),
        "check_gradients": st.booleans(),
        "seed": st.integers(0, 2**31),
        "text_columns": st.sampled_from([None, ["question", "answer"]]),
        "cache_gradients": st.sampled_from([None, "float16"]),
    },
)


@given(SETTINGS)
def test_what_the_shell_reads_are_the_settings(settings):
    config = SageConfig(**{"fraction": 0.1, **settings})
    inputs = Inputs("me/model", "me/data", split="a b", dataset_revision="v1", device="cuda:7")
    command = select_command(inputs, config, "out", streaming=True, target=None)
    read, options = parse(shlex.split(shlex.join(command)))
    assert read == config
    assert (options["split"], options["dataset_revision"], options["device"]) == ("a b", "v1", None)
    assert (options["streaming"], options["target"]) == (True, None)
