"""`print(selection)` is about five lines; its repr is one."""

import pytest
from datasets import Dataset

from sage_hf import SageConfig, SageSelector

from ..cases import image_rows, llama, pad_tokens, token_rows, vit


@pytest.fixture(scope="module")
def by_class():
    config = SageConfig(fraction=0.2, strategy="agreement", sketch_size=8, gate=None)
    return SageSelector(vit(), config=config, progress=False).select(image_rows(60))


def test_a_selection_prints_what_was_kept_how_and_how_to_go_on(by_class):
    lines = str(by_class).splitlines()
    assert lines[0] == "Selection: 12 of 60 rows of the dataset kept (20.0 %)"
    assert lines[1] == "Groups by label: class 0 4 of 20, class 1 4 of 20, class 2 4 of 20"
    assert lines[2].startswith("Strategy: agreement; mean score ")
    assert "of the gradients' energy; 0 rows set aside" in lines[3]
    assert ".dataset for the rows" in lines[-1] and ".choose(fraction=...)" in lines[-1]
    assert len(lines) == 5 + bool(by_class.stats.warning)


def test_the_repr_is_one_line_without_arrays(by_class):
    assert repr(by_class) == "Selection(12 of 60 rows, strategy='agreement')"
    assert "spectrum=<list of" in repr(by_class.stats) and len(repr(by_class.stats)) < 2500


def test_without_classes_there_are_no_groups_to_name_and_a_stream_cannot_be_chosen_from_again():
    config = SageConfig(num_examples=5, strategy="agreement", sketch_size=8, gate=None)
    selector = SageSelector(llama(), data_collator=pad_tokens, config=config, progress=False)
    streamed = selector.select(token_rows(20).to_iterable_dataset())
    text = str(streamed)
    assert text.startswith("StreamSelection: 5 of 20 rows of the stream kept (25.0 %)\nGroups: none")
    assert ".choose" not in text and repr(streamed) == "StreamSelection(5 of 20 rows, strategy='agreement')"


def test_many_groups_with_long_names_stay_one_line():
    rows = image_rows(60).remove_columns("label")
    rows = rows.add_column("label", [number % 3 for number in range(60)])
    rows = rows.add_column("topic", [f"a long name\nof a topic, number {number % 10}" for number in range(60)])
    config = SageConfig(fraction=0.5, strategy="agreement", sketch_size=8, group_by="topic", gate=None)
    assert isinstance(rows, Dataset)
    line = str(SageSelector(vit(), config=config, progress=False).select(rows)).splitlines()[1]
    assert line.startswith("Groups by topic: a long name of a ... 3 of 6, ") and line.endswith(", 6 more")
