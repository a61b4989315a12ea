import gc
import tempfile

import numpy as np
import pytest
import torch

from sage_hf import GradientCollector, SageConfig, SageSelector
from sage_hf.errors import ConfigError, GroupError
from sage_hf.scoring.agreement import unit

from ..cases import image_rows, llama, pad_tokens, token_rows, vit

SMALL = {"sketch_size": 16, "batch_size": 8, "shard_size": 16, "fraction": 0.3, "projection": 4}


def gather(needs, cache_dir=None, **settings):
    rows = image_rows(50)
    config = SageConfig(**{**SMALL, **settings})
    selector = SageSelector(vit(), config=config, cache_dir=cache_dir, progress=False)
    return rows, selector, selector.gather(rows, needs)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("settings", [{}, {"consensus": "exact"}, {"spectrum_power": 0.5}], ids=str)
def test_sketched_gradients_and_lengths_are_those_of_each_row(tmp_path, settings, exact):
    cache = "float32" if exact else "auto"
    rows, selector, signals = gather({"sketched", "norms"}, tmp_path, **settings, cache_gradients=cache)
    batch = {"pixel_values": torch.tensor(rows["pixel_values"][:]), "labels": torch.tensor(rows["label"][:])}
    gradients = GradientCollector(vit(), projection=4)(batch)
    assert np.allclose(signals.norms, gradients.norm(dim=1), rtol=1e-4 if exact else 1e-3)
    sketch = selector.sketch
    power = settings.get("spectrum_power", 1.0)
    values = sketch.singular_values.double()
    basis = torch.where(values[:, None] > 1e-6 * values[0], sketch.sketch.double() / values[:, None], 0.0)
    wanted = unit(gradients.double()) @ (basis * (values / values[0])[:, None] ** power).T
    assert np.allclose(signals.sketched[np.arange(50)], wanted, atol=1e-4 if exact else 2e-3)


def test_keeping_sketched_gradients_does_not_change_the_scores():
    _, _, with_them = gather({"sketched"})
    _, _, without = gather(())
    assert np.array_equal(with_them.scores, without.scores)
    assert without.sketched is None and without.norms is None and without.embeddings is None


def test_a_power_changes_the_scores_as_it_changes_the_sketch():
    _, selector, plain = gather({"sketched"})
    _, _, powered = gather((), spectrum_power=0.25, consensus="exact")
    spectrum = (selector.sketch.singular_values / selector.sketch.singular_values[0]).numpy()
    z = torch.from_numpy(plain.sketched[np.arange(50)] * np.where(spectrum > 1e-6, spectrum, 1.0) ** -0.75).double()
    for group in range(3):
        mine = np.flatnonzero(plain.groups.codes == group)
        consensus = unit(unit(z[mine]).sum(0, keepdim=True))
        assert np.allclose(powered.scores[mine], (unit(z[mine]) @ consensus.T)[:, 0], atol=1e-3)


def test_clusters_are_groups_of_rows_whose_gradients_point_alike():
    rows = image_rows(60)
    config = SageConfig(**SMALL, group_by="cluster", num_clusters=3, strategy="agreement")
    selection = SageSelector(vit(), config=config, progress=False).select(rows)
    assert selection.stats.group_by == "cluster"
    assert selection.group_names == ["cluster 0", "cluster 1", "cluster 2"]
    one_group = SageSelector(vit(), config=SageConfig(**SMALL, group_by=None), progress=False).gather(rows, ())
    assert selection.scores.mean() > one_group.scores.mean() + 0.1
    # Gradients of a class point alike: clusters know of the labels, which nobody told them.
    table = np.zeros((3, 3))
    np.add.at(table, (selection.groups, np.array(rows["label"][:])), 1)
    assert table.max(1).sum() / 60 > 0.6


@pytest.mark.parametrize("strategy", ["auto", "coverage", "random"])
def test_text_without_labels_is_clustered(strategy):
    config = SageConfig(**SMALL, group_by="cluster", num_clusters=4, strategy=strategy)
    selector = SageSelector(llama(), data_collator=pad_tokens, config=config, progress=False)
    selection = selector.select(token_rows(40))
    assert len(selection) == 12
    assert sum(group.kept for group in selection.group_table) == 12
    again = SageSelector(llama(), data_collator=pad_tokens, config=config, progress=False).select(token_rows(40))
    assert np.array_equal(selection.indices, again.indices)


def test_a_column_that_is_called_cluster_is_not_taken_for_clusters():
    rows = image_rows(30).add_column("cluster", ["left", "right"] * 15)
    config = SageConfig(**SMALL, group_by="cluster", strategy="agreement")
    with pytest.raises(GroupError, match="a column of this name"):
        SageSelector(vit(), config=config, progress=False).select(rows)


def test_a_stream_has_no_clusters():
    config = SageConfig(**SMALL, group_by="cluster", strategy="agreement")
    with pytest.raises(ConfigError, match="clusters"):
        SageSelector(vit(), config=config, progress=False).select(image_rows(30).to_iterable_dataset())


@pytest.mark.parametrize("settings", [{"consensus": "exact"}, {"group_by": "cluster"}], ids=str)
def test_a_file_of_all_rows_goes_with_what_was_gathered_and_not_with_the_selector(tmp_path, monkeypatch, settings):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    _, selector, signals = gather({"sketched"}, **settings)
    assert list(tmp_path.rglob("*.npy"))
    del signals
    gc.collect()
    assert not list(tmp_path.rglob("*.npy"))
    selector.fit(image_rows(30))
    gc.collect()
    assert not list(tmp_path.rglob("*.npy"))
    assert image_rows(30).map(selector.score, batched=True)["sage_score"][0] is not None
