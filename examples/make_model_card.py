"""Makes model_cards/digits-vit: the card of run_image_classification.py's offline run, and its facts.

    python examples/make_model_card.py

A test renders the card again from `facts.json` with the template in the package, and wants the same text.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from huggingface_hub import ModelCard
from run_image_classification import OFFLINE, DataArguments, load
from running import accuracy
from transformers import Trainer

from sage_hf import SageTrainer, SageTrainingArguments
from sage_hf.model_card import PICTURE, facts, render
from sage_hf.pictures import save_scores

FOLDER = Path(__file__).parents[1] / "model_cards" / "digits-vit"
DATASET = "digits with wrong labels"


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
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
    save_scores(trainer.selection, FOLDER / PICTURE)
    given = {
        "card_data": card.data.to_dict(),
        "trainer_card": card.text.strip(),
        "told": facts(trainer.selection, DATASET, args, len(trainer.selections), PICTURE),
    }
    (FOLDER / "facts.json").write_text(json.dumps(given, indent=2) + "\n", encoding="utf-8")
    render(**given).save(FOLDER / "README.md")


if __name__ == "__main__":
    main()
