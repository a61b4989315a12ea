"""Names as they were before 0.2.0 work for one version, and say what they are now."""

import numpy as np
import pytest

import sage_hf
from sage_hf import SageConfig, SageSelector, Selection, StreamSelection

from .cases import image_rows, vit

CONFIG = SageConfig(strategy="agreement", fraction=0.3, sketch_size=8, batch_size=8, shard_size=16)


@pytest.fixture(scope="module")
def selections():
    rows = image_rows(30)
    return [
        SageSelector(vit(), config=CONFIG, progress=False).select(each) for each in (rows, rows.to_iterable_dataset())
    ]


@pytest.mark.parametrize(
    ("old", "now"),
    [
        ("select_over", "select_over_checkpoints"),
        ("find_suspects", "find_label_issues"),
        ("Suspects", "LabelIssues"),
    ],
)
def test_names_of_the_package(old, now):
    with pytest.warns(DeprecationWarning, match=f"sage_hf.{old} is now sage_hf.{now}"):
        assert getattr(sage_hf, old) is getattr(sage_hf, now)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sage_hf.nothing


@pytest.mark.parametrize("kind", [Selection, StreamSelection])
def test_save_and_load(selections, tmp_path, kind):
    selection = next(each for each in selections if type(each) is kind)
    with pytest.warns(DeprecationWarning, match="save_to_disk"):
        folder = selection.save(tmp_path / "kept")
    with pytest.warns(DeprecationWarning, match="load_from_disk"):
        assert np.array_equal(kind.load(folder).indices, selection.indices)


def test_statistics_by_key(selections):
    for selection in selections:
        with pytest.warns(DeprecationWarning, match=r"\.energy"):
            assert selection.stats["energy"] == selection.stats.energy
        with pytest.warns(DeprecationWarning, match=r"\.kept"):
            assert selection.group_table[0]["kept"] == selection.group_table[0].kept
        assert "energy" in selection.stats and "gate" not in selection.stats and "nothing" not in selection.stats
        assert selection.stats.get("gate") is None and selection.stats.get("rows") == 30
        with pytest.raises(KeyError, match="nothing"):
            _ = selection.stats["nothing"]


def test_arrays_of_a_stream(selections):
    stream = selections[1]
    with pytest.warns(DeprecationWarning, match="kept_scores"):
        assert stream.scores is stream.kept_scores
    with pytest.warns(DeprecationWarning, match="kept_groups"):
        assert stream.groups is stream.kept_groups


def test_the_folder_that_a_selection_goes_on_from(tmp_path):
    with pytest.warns(DeprecationWarning, match="resume_dir"):
        selector = SageSelector(vit(), config=CONFIG, progress=False, checkpoint_dir=tmp_path)
    selector.fit(image_rows(20))
    assert list(tmp_path.rglob("*.safetensors"))


def test_both_kinds_of_selections_have_the_same_axes(selections):
    whole, stream = selections
    assert np.array_equal(whole.kept_scores, stream.kept_scores)
    assert np.array_equal(whole.kept_groups, stream.kept_groups)
    assert len(whole) == len(stream) == len(whole.kept_scores) == len(stream.indices)
