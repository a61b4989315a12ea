"""The summary counts as people do."""

from dataclasses import replace

import pytest

from sage_hf.data.stats import GateStats
from sage_hf.selection.report import about_gate

GATE = GateStats("cross-fold", doubted=3, judged=418, wrong_share=0.01)


def test_no_doubted_row_is_told_without_advice_to_look_at_them():
    assert "label-issues" in about_gate(GATE)[0]
    (line,) = about_gate(replace(GATE, doubted=0, wrong_share=0.0))
    assert line == "Gate: none of 418 rows is likely to have a wrong label. Estimated share: 0.0 %."


@pytest.mark.parametrize(
    ("rows", "copies", "hard"),
    [
        (1, "1 row stays out, because", "1 hard row stays out, too"),
        (2, "2 rows stay out, because", "2 hard rows stay out"),
    ],
)
def test_one_row_is_a_row(rows, copies, hard):
    told = " ".join(about_gate(replace(GATE, copies=rows, recipe="careful", hard=rows)))
    assert copies in told and hard in told
