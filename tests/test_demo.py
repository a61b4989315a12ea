import json

import pytest
from PIL import Image
from typer.testing import CliRunner

from sage_hf.cli.main import app
from sage_hf.demo import load_noisy_digits, run_demo


def test_a_fifth_of_the_training_labels_is_wrong_and_no_test_label():
    digits = load_noisy_digits(seed=3)
    again = load_noisy_digits(seed=3, wrong_share=0.0)
    changed = [one != other for one, other in zip(digits.train["label"], again.train["label"], strict=True)]
    assert changed == digits.is_wrong.tolist()
    assert digits.is_wrong.sum() == round(0.2 * len(digits.train))
    assert digits.test["label"] == again.test["label"]
    assert len(digits.train) + len(digits.test) == 1797


@pytest.mark.slow
def test_the_demo_keeps_fewer_wrong_labels_than_chance_and_draws_its_picture(tmp_path):
    selection, (selected, lots, everything) = run_demo(
        tmp_path, trainings=1, warm_up_steps=300, training_steps=20, say=lambda line: None
    )
    assert len(selection) == selected.rows == lots.rows == 126
    assert everything.rows == 1257
    # By lot 25 of 126 are wrong, give or take 4.3: 12 or fewer come by luck once in 700 times.
    assert selected.wrong_labels <= 12
    assert 12 < lots.wrong_labels < 38
    assert all(0 <= group.mean <= 1 for group in (selected, lots, everything))
    assert json.loads((tmp_path / "demo.json").read_text())["groups"][0]["wrong_labels"] == selected.wrong_labels
    assert Image.open(tmp_path / "demo.png").size[0] > 800


@pytest.mark.slow
def test_the_command_prints_three_accuracies_and_the_picture(tmp_path, monkeypatch):
    shorter = {**run_demo.__kwdefaults__, "warm_up_steps": 20, "training_steps": 5}
    monkeypatch.setattr(run_demo, "__kwdefaults__", shorter)
    result = CliRunner(env={"COLUMNS": "100"}).invoke(app, ["demo", "-o", str(tmp_path), "--trainings", "1"])
    assert result.exit_code == 0, result.output
    for name in ("selected", "random", "all"):
        assert name in result.output
    assert result.output.count("%") >= 4
    assert (tmp_path / "demo.png").exists()
