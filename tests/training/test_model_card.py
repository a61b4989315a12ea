"""The model card tells how the rows were chosen, whatever the rows are called."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from sage_hf import Selection
from sage_hf.training.model_card import describe_training, eval_results, facts, render

from ..cases import image_rows, vit
from .runs import make, sage_args, train
from .test_compatibility import sft

# As this version of transformers calls them.
TARGETS = sorted({name.split(".")[-1] for name, _ in vit().named_modules()} & {"q_proj", "v_proj", "query", "value"})
CARDS = Path(__file__).parents[2] / "model_cards"


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    args = sage_args(tmp_path_factory.mktemp("run"), sage_refresh_epochs=2, sage_target_modules=TARGETS)
    trained = train(vit(), args, image_rows(48), eval_dataset=image_rows(9))
    trained.evaluate()
    trained.create_model_card(dataset="bright squares", tasks="image-classification", tags=["mine"])
    return trained


def test_the_committed_card_is_what_the_template_renders():
    folder = CARDS / "digits-vit"
    given = json.loads((folder / "facts.json").read_text())
    assert str(render(**given)) == (folder / "README.md").read_text()
    assert len(given["values"]["pictures"]) == 3
    for path, _ in given["values"]["pictures"]:
        assert (folder / path).stat().st_size > 5000


def test_the_card_tells_the_selections_provenance(trainer):
    text = (Path(trainer.args.output_dir) / "README.md").read_text()
    selection = trainer.selection
    for told in (
        "After 1 epochs on all rows of bright squares, this model was trained on 19 of",
        "the subset was chosen 2 times, every 2 passes over it",
        f"fingerprint `{selection.source_fingerprint}`",
        "19 of 48 rows (39.6 %), fraction 0.4",
        "agreement; groups: label, balance: proportional, consensus: streaming",
        f"after 12 optimizer steps (3 epochs), weights `{selection.stats.model_fingerprint}`",
        f"({TARGETS[0]}, {TARGETS[1]})".replace("_", "\\_"),
        f"holds {100 * selection.stats.energy:.1f} % of the gradients' energy",
        f"{selection.stats.mean_score_kept:.3f} on average of the kept rows",
        "| class 0 | 16 |",
        "0 rows whose gradient is not finite",
        "![Agreement of the rows by group, kept and not kept](sage/scores.png)",
        "![Share of each group that was kept](sage/groups.png)",
        "under-represented",
        "### Training hyperparameters",
    ):
        assert told in text, told
    assert sum(group.kept for group in selection.group_table) == 19


def test_its_metadata_is_trainers_with_the_tags(trainer):
    card = ModelCard.load(Path(trainer.args.output_dir) / "README.md")
    assert {"generated_from_trainer", "mine", "sage", "data-selection"} <= set(card.data.tags)
    assert card.data.library_name == "transformers"
    assert (Path(trainer.args.output_dir) / "sage" / "scores.png").read_bytes()[:4] == b"\x89PNG"


def test_its_results_are_the_last_evaluations_as_the_hub_reads_them(trainer):
    card = ModelCard.load(Path(trainer.args.output_dir) / "README.md")
    last = next(entry for entry in reversed(trainer.state.log_history) if "eval_loss" in entry)
    (result,) = card.data.eval_results
    assert (result.task_type, result.metric_type, result.dataset_name) == (
        "image-classification",
        "loss",
        "bright squares",
    )
    assert result.metric_value == last["eval_loss"]


def test_the_task_of_a_model_is_its_classs_and_an_unknown_one_has_no_results(trainer):
    training = describe_training(trainer, {}, None)
    assert {result.task_type for result in eval_results(training, "rows")} == {"image-classification"}
    assert eval_results(replace(training, model_class="Classifier"), "rows") == []
    assert eval_results(replace(training, log_history=[]), "rows") == []


def test_writing_it_again_changes_nothing(trainer):
    path = Path(trainer.args.output_dir) / "README.md"
    before = path.read_text()
    trainer.create_model_card(dataset="bright squares", tasks="image-classification", tags=["mine"])
    assert path.read_text() == before


def test_without_matplotlib_there_is_a_card_without_a_picture(trainer, monkeypatch):
    monkeypatch.setattr("sage_hf.hub.pictures.find_spec", lambda name: None)
    trainer.create_model_card(dataset="bright squares")
    assert "![" not in (Path(trainer.args.output_dir) / "README.md").read_text()


def test_names_cannot_break_the_table(trainer):
    selection = Selection(**{**vars(trainer.selection), "source": None})
    names = ["a|b", "*c*\n# d", "<script>"]
    groups = [replace(group, name=name) for group, name in zip(selection.stats.groups, names, strict=True)]
    selection.stats = replace(selection.stats, groups=groups)
    text = str(render({}, "", facts(selection, "rows", describe_training(trainer, {}, None), [])))
    table = [line for line in text.splitlines() if line.startswith("| ") and line.count(" | ") == 5][1:]
    assert len(table) == 3
    assert table[0].startswith("| a\\|b | 16 |")
    assert table[1].startswith("| \\*c\\* \\# d | 16 |")
    assert table[2].startswith("| \\<script\\> | 16 |")


def test_the_smaller_groups_of_many_are_counted(trainer):
    one = trainer.selection.stats.groups[0]
    selection = Selection(**{**vars(trainer.selection), "source": None})
    selection.stats = replace(selection.stats, groups=[replace(one, rows=100 - number) for number in range(33)])
    text = str(render({}, "", facts(selection, "rows", describe_training(trainer, {}, None), [])))
    assert "and 13 smaller groups." in text


def test_before_a_selection_the_card_is_trainers(tmp_path):
    trainer = make(vit(), sage_args(tmp_path), image_rows(9))
    trainer.create_model_card()
    assert "How the training rows were chosen" not in (tmp_path / "README.md").read_text()


def test_trls_card_gets_the_same_section(tmp_path):
    trainer = sft(tmp_path)
    trainer.create_model_card(dataset_name="docstrings")
    text = (tmp_path / "README.md").read_text()
    assert "TRL" in text
    assert "rows of docstrings" in text
    assert "trl" in ModelCard.load(tmp_path / "README.md").data.tags
