import pytest
from datasets import Dataset
from typer.testing import CliRunner

from sage_hf import Comparison, SageConfig
from sage_hf.cli.compare import CompareOptions, _load_both, joined
from sage_hf.cli.main import app
from sage_hf.cli.options import Inputs
from sage_hf.comparison.experiment import Experiment
from sage_hf.hub.provenance import describe_dataset

from ..cases import image_rows, llama, token_rows, vit

RUNNER = CliRunner(env={"COLUMNS": "120", "TERM": "dumb"})
SMALL = ["--sketch-size", "8", "--batch-size", "16", "--device", "cpu", "--max-steps", "2", "--seeds", "2"]


def run(*arguments):
    return RUNNER.invoke(app, ["compare", *(str(argument) for argument in arguments)])


@pytest.fixture(autouse=True)
def _uncollected(monkeypatch):
    """Half of such short trainings' time is the collection of garbage after them."""
    monkeypatch.setattr("sage_hf.comparison.experiment.clear_device_cache", lambda **_: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from datasets import DatasetDict

    root = tmp_path_factory.mktemp("compare")
    vit(3).save_pretrained(root / "vit")
    vit(3).vit.save_pretrained(root / "headless")
    llama().save_pretrained(root / "lm")
    DatasetDict(train=image_rows(80), test=image_rows(30, seed=1)).save_to_disk(root / "images")
    token_rows(40).map(lambda row: {"labels": row["input_ids"][:]}).save_to_disk(root / "tokens")
    return root


def test_a_table_a_recommendation_and_the_files_come_out_and_a_second_call_goes_on(folder, tmp_path, monkeypatch):
    ran, real = [], Experiment.run
    monkeypatch.setattr(Experiment, "run", lambda *given: (ran.append(1), real(*given))[1])
    arguments = [folder / "vit", folder / "images", "--test-split", "test", *SMALL, "-o", tmp_path / "out"]
    result = run(*arguments, "--fractions", "0.1", "0.25", "--strategies", "agreement,random")
    assert result.exit_code == 0, result.output
    for words in ("accuracy after the same number of steps", "agreement", "25 %", "No conclusion", "Written to"):
        assert words in result.output
    comparison = Comparison.load(tmp_path / "out")
    assert comparison.strategies == ["agreement", "random"]
    assert comparison.fractions == [0.1, 0.25]
    assert comparison.seeds == [0, 1]
    assert "max_steps=2" in comparison.settings["training"]
    assert len(ran) == 2 * 5
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"comparison.json", "comparison.md", "comparison.png", "comparison.svg", "runs.jsonl"} <= names
    again = run(*arguments, "--fractions", "0.1,0.25", "--strategies", "agreement", "random")
    assert again.exit_code == 0, again.output
    assert len(ran) == 2 * 5
    assert Comparison.load(tmp_path / "out") == comparison
    other = run(*arguments, "--fractions", "0.1", "--learning-rate", "0.1")
    assert other.exit_code == 1
    assert "training.learning_rate is 0.1 and was 5e-05" in " ".join(other.output.split())


def test_a_new_head_differs_by_seed_and_the_warm_up_is_the_scorers_alone(folder, tmp_path, monkeypatch):
    from sage_hf.utils.fingerprint import model_fingerprint

    built, real = [], Experiment.fresh

    def fresh(self, seed):
        model = real(self, seed)
        built.append((seed, model_fingerprint(model)))
        return model

    monkeypatch.setattr(Experiment, "fresh", fresh)
    arguments = [folder / "headless", folder / "images", "--test-size", "0.25", *SMALL, "-o", tmp_path / "out"]
    result = run(*arguments, "--fractions", "0.2", "--strategies", "random", "--warmup-steps", "2")
    assert result.exit_code == 0, result.output
    assert "Warm-up: 2 steps" in result.output
    arguments += ["--fractions", "0.2", "--strategies", "random", "--warmup-steps", "2"]
    monkeypatch.setattr("sage_hf.training.warmup.take_steps", None)
    again = run(*arguments)
    assert again.exit_code == 0, again.output
    assert "reused from an earlier run" in again.output
    assert len(set(built)) == len({print_ for _, print_ in built}) == 2
    assert [run.rows for run in Comparison.load(tmp_path / "out").runs] == [60, 12, 60, 12]


def test_a_language_model_is_judged_by_its_loss(folder, tmp_path):
    arguments = [folder / "lm", folder / "tokens", "--test-size", "0.25", *SMALL, "-o", tmp_path / "out"]
    result = run(*arguments, "--fractions", "0.2", "--strategies", "random", "--seeds", 1, "--train-batch-size", 1)
    assert result.exit_code == 0, result.output
    assert "loss" in result.output  # rows of uneven length are padded without a tokenizer


def test_lists_take_spaces_and_commas_and_leave_arguments_alone():
    line = "--fractions 0.1 0.2, 0.3 model data --strategies auto random,loss -o out --fractions 0.5"
    assert joined(line.split()) == [
        *("--fractions", "0.1,0.2,0.3", "model", "data"),
        *("--strategies", "auto,random,loss", "-o", "out", "--fractions", "0.5"),
    ]
    assert joined(["--fractions"]) == ["--fractions"]
    assert joined(["--strategies", "luck", "auto"]) == ["--strategies", "luck,auto"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Neither of --test-split and --test-size"),
        (["--test-split", "test", "--test-size", "0.2"], "Both of --test-split and --test-size"),
        (["--test-split", "train"], "no split 'train' besides the training rows"),
        (["--test-split", "validation"], "validation"),
        (["--test-size", "1.5"], "test_size is 1.5"),
        (["--test-size", "0.2", "--fractions", "many"], "A fraction is 'many'"),
        (["--test-size", "0.2", "--fractions", "2"], "A fraction is 2.0"),
        (["--test-size", "0.2", "--strategies", "luck"], "luck"),
        (["--test-size", "0.2", "--seeds", "0"], "seeds is 0"),
    ],
)
def test_what_cannot_be_compared_is_an_error_with_a_message(folder, tmp_path, arguments, words):
    result = run(folder / "vit", folder / "images", "--device", "cpu", "-o", tmp_path / "out", *arguments)
    assert result.exit_code == 1, result.output
    assert words in " ".join(result.output.split())


def test_options_of_a_single_selection_are_not_there():
    told = RUNNER.invoke(app, ["compare", "--help"]).output
    assert "--fractions" in told
    assert "--num-examples" not in told
    assert run("model", "data", "--strategy", "auto").exit_code == 2


def test_rows_of_a_file_are_called_after_it(tmp_path):
    Dataset.from_dict({"text": ["a", "b", "c", "d", "e"], "label": [0, 1, 0, 1, 0]}).to_csv(tmp_path / "swapped.csv")
    train, test = _load_both(Inputs("m", str(tmp_path / "swapped.csv")), CompareOptions(test_size=0.4), SageConfig())
    assert (len(train), len(test)) == (3, 2)
    assert describe_dataset(train)["name"] == "swapped.csv"
