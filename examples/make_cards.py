"""Makes the cards in model_cards, of the offline runs of two examples, and the facts that they tell.

    python examples/make_cards.py      # under a minute on two cores

Tests render the cards again from `facts.json` with the templates in the package, and want the same text.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from huggingface_hub import ModelCard
from run_image_classification import OFFLINE, DataArguments, load
from running import accuracy
from select_and_push import load_offline
from transformers import Trainer

from sage_hf import SageConfig, SageSelector, SageTrainer, SageTrainingArguments
from sage_hf.hub import dataset_card as of_dataset
from sage_hf.hub.pictures import save_pictures
from sage_hf.training.model_card import PICTURES_FOLDER, describe_training, facts, metadata, render, trainer_text

FOLDER = Path(__file__).parents[1] / "model_cards"
DATASET = "digits with wrong labels"
REPOSITORY = "your-name/python-language-reference-10pct"


def make_model_card(place: Path) -> None:
    """What `SageTrainer.create_model_card` writes after run_image_classification.py."""
    with tempfile.TemporaryDirectory() as folder:
        args = SageTrainingArguments(folder, use_cpu=True, **OFFLINE)
        model, _, train, test = load(DataArguments(), args)
        trainer = SageTrainer(model=model, args=args, train_dataset=train, eval_dataset=test, compute_metrics=accuracy)
        trainer.train()
        trainer.evaluate()
        Trainer.create_model_card(
            trainer, model_name="digits-vit", dataset=DATASET, tasks="image-classification", license="apache-2.0"
        )
        card = ModelCard.load(Path(folder) / "README.md")
    pictures = save_pictures(trainer.selection.seen(), place / PICTURES_FOLDER)
    training = describe_training(trainer, {"dataset": DATASET, "tasks": "image-classification"}, None)
    given = {
        "card_data": metadata(card, train, DATASET, training),
        "trainer_card": trainer_text(card),
        "values": facts(trainer.selection, DATASET, training, pictures),
    }
    write(place, given, str(render(**given)))


def make_dataset_card(place: Path) -> None:
    """What `push_to_hub` pushes after select_and_push.py, but for the metadata that datasets adds of its own."""
    config = SageConfig(fraction=0.1, group_by="label", max_length=256)
    train, test, model, tokenizer = load_offline(config, steps=100)
    selection = SageSelector(model, processing_class=tokenizer, config=config).select(train)
    pictures = save_pictures(selection.seen(), place / of_dataset.folder("default"))
    pushed = of_dataset.Pushed(
        repo_id=REPOSITORY,
        config_name="default",
        split="train",
        splits={"train": len(selection), "test": len(test)},
        pictures=pictures,
        source_fingerprint=selection.source_fingerprint,
    )
    told = of_dataset.card_facts(selection.stats, selection.config, pushed, license="other")
    given = {"told": told, "data": of_dataset.metadata(told, None)}
    card = of_dataset.merge(None, of_dataset.render_section(told), "default", given["data"])
    write(place, given, str(card))


def write(place: Path, given: dict, card: str) -> None:
    """A card and what its template was given."""
    (place / "facts.json").write_text(json.dumps(given, indent=2) + "\n", encoding="utf-8")
    (place / "README.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    make_model_card(FOLDER / "digits-vit")
    make_dataset_card(FOLDER / "language-reference-10pct")
