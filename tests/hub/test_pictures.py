"""Pictures show what the selection holds, are the same bytes each time, and say what they need."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_hex

from sage_hf import SageConfig, SageSelector
from sage_hf.errors import ConfigError
from sage_hf.hub.pictures import KEPT_COLOUR, OTHER_COLOUR, PICTURES, Seen, draw, render, save_pictures

from ..cases import image_rows, vit


def seen(groups=3, rows=60, others=True, group_by="label"):
    generator = np.random.default_rng(0)
    scores = [np.sort(generator.uniform(-0.3, 1, rows - group).astype(np.float32)) for group in range(groups)]
    kept = [part[-(len(part) // 4) :] for part in scores]
    left = [part[: -(len(part) // 4)] for part in scores]
    table = [{"name": f"class {n}", "rows": len(part), "kept": len(part) // 4} for n, part in enumerate(scores)]
    return Seen(group_by, table, kept, left if others else None, [4.0, 2.0, 1.0, 0.0], 10.0)


@pytest.fixture(scope="module")
def selection():
    config = SageConfig(fraction=0.2, sketch_size=8, shard_size=16, batch_size=8)
    return SageSelector(vit(), config=config).select(image_rows(30))


def words(svg):
    return " ".join(part.strip() for part in ElementTree.fromstring(svg).itertext() if part.strip())


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_is_written_as_png_and_the_same_bytes_again(tmp_path, name):
    assert save_pictures(seen(), tmp_path / "one") == list(PICTURES)
    save_pictures(seen(), tmp_path / "two")
    one, other = ((tmp_path / folder / f"{name}.png").read_bytes() for folder in ("one", "two"))
    assert one == other
    assert one.startswith(b"\x89PNG")
    assert str(tmp_path).encode() not in one
    assert {path.suffix for path in (tmp_path / "one").iterdir()} == {".png"}


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_the_same_figure_is_the_same_bytes(kind, start):
    one, other = (render(draw(seen(), "scores"), kind) for _ in range(2))
    assert one == other
    assert one.startswith(start)


def test_scores_are_drawn_by_group_kept_and_not_kept_told_apart_without_colour():
    figure = draw(seen(), "scores")
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [panel.get_title() for panel in panels] == ["class 0", "class 1", "class 2"]
    for panel in panels:
        colours = {to_hex(patch.get_facecolor()): patch.get_hatch() for patch in panel.patches}
        assert colours == {KEPT_COLOUR: "//", OTHER_COLOUR: None}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["kept", "not kept"]
    # On a grey scale, too: by the weights of Rec. 601.
    grey = [
        sum(
            weight * int(colour[1 + 2 * place : 3 + 2 * place], 16)
            for place, weight in enumerate((0.299, 0.587, 0.114))
        )
        for colour in (KEPT_COLOUR, OTHER_COLOUR)
    ]
    assert grey[1] - grey[0] > 80


def test_every_row_is_in_the_histogram():
    held = seen()
    figure = draw(held, "scores")
    lowest = min(float(part.min()) for part in [*held.kept, *held.others])
    for panel, kept, others in zip(figure.axes, held.kept, held.others, strict=False):
        top = [patch.get_xy()[:, 1].max() for patch in panel.patches]
        low, high = panel.get_xlim()
        assert low <= min(others.min(), kept.min())
        assert high >= max(others.max(), kept.max())
        counts = np.histogram(np.concatenate([kept, others]), np.linspace(lowest, 1.0, 41))[0]
        assert max(top) == counts.max()


def test_a_stream_shows_kept_rows_alone():
    figure = draw(seen(others=False), "scores")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["kept"]


def test_of_many_groups_the_largest_are_drawn_and_the_number_is_told():
    figure = draw(seen(groups=20), "scores")
    shown = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert shown == [f"class {number}" for number in range(12)]
    assert "12 largest of 20 groups" in figure.get_suptitle()
    assert len(draw(seen(groups=20), "groups").axes[0].patches) == 12


def test_the_spectrum_tells_the_share_of_the_energy_in_all():
    assert "up to it: 70.0% in all" in words(render(draw(seen(), "spectrum"), "svg"))
    (line,) = [line for line in draw(seen(), "spectrum").axes[0].lines if len(line.get_xdata()) == 3]
    assert line.get_ydata().tolist() == [0.4, 0.2, 0.1]  # and no direction that is empty


def test_shares_are_kept_rows_over_rows():
    held = seen()
    axes = draw(held, "groups").axes[0]
    wanted = [entry.kept / entry.rows for entry in held.table]
    assert [patch.get_width() for patch in axes.patches] == wanted
    assert "15 of 60" in words(render(draw(held, "groups"), "svg"))


def test_names_are_shown_as_they_are_and_cut_where_long():
    held = seen()
    for entry, name in zip(held.table, ["$x^2$ & <b>", "a\nb", "n" * 60], strict=True):
        entry.name = name
    for name in PICTURES:
        svg = render(draw(held, name), "svg")
        if name == "scores":
            assert "$x^2$ & <b>" in words(svg)
            assert "a b" in words(svg)
            assert "n" * 23 + "…" in words(svg)


def test_a_selection_with_one_group_and_with_an_empty_part_can_be_drawn():
    one = seen(groups=1, group_by=None)
    one.others[0] = one.others[0][:0]
    for name in (None, *PICTURES):
        assert render(draw(one, name), "png")[:4] == b"\x89PNG"


def test_a_selection_draws_itself(selection):
    figure = selection.plot()
    text = words(render(figure, "svg"))
    for group in selection.group_table:
        assert f"{group.name} ({group.kept} of {group.rows})" in re.sub(" +", " ", text)
    assert f"{selection.stats.energy:.1%} in all" in text
    assert len(selection.plot("groups").axes) == 1


def test_plotting_leaves_the_users_matplotlib_alone(selection):
    import matplotlib
    from matplotlib import pyplot

    before, figures = dict(matplotlib.rcParams), pyplot.get_fignums()
    selection.plot()
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == figures


def test_an_unknown_picture_and_a_missing_matplotlib_are_told(selection, monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="'bars'") as caught:
        selection.plot("bars")
    assert "scores" in str(caught.value)
    monkeypatch.setattr("sage_hf.hub.pictures.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"sage-hf\[plot\]"):
        selection.plot()
    assert save_pictures(selection.seen(), tmp_path / "none") == []
