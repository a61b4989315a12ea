"""Trains an image classifier on a subset that follows it.

    python examples/run_image_classification.py --output_dir out/digits
    accelerate launch examples/run_image_classification.py --output_dir out/beans \
        --dataset_name AI-Lab-Makerere/beans --model_name_or_path google/vit-base-patch16-224-in21k \
        --label_column labels --sage_fraction 0.2 --num_train_epochs 5

Without --dataset_name: scikit-learn's digits, a fifth of the labels wrong, and a small ViT built from a config; no
network, under a minute on two cores.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from datasets import Dataset, load_dataset
from running import accuracy, finish, parse
from transformers import AutoImageProcessor, AutoModelForImageClassification

from sage_hf import SageTrainer, SageTrainingArguments
from sage_hf.demo import build_vit, load_noisy_digits

OFFLINE = {
    "num_train_epochs": 20,
    "learning_rate": 2e-3,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 256,
    "logging_strategy": "epoch",
    "save_strategy": "no",
    "report_to": "none",
    "sage_fraction": 0.1,
    "sage_warmup_epochs": 10.0,
    "sage_refresh_epochs": 5,
}


@dataclass
class DataArguments:
    """Which data and which model."""

    dataset_name: str | None = field(default=None, metadata={"help": "Hub id or folder; digits by default."})
    dataset_config: str | None = field(default=None, metadata={"help": "The dataset's configuration."})
    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    test_split: str = field(default="test", metadata={"help": "Split to evaluate on."})
    image_column: str = field(default="image", metadata={"help": "Column with the images."})
    label_column: str = field(default="label", metadata={"help": "Column with the classes."})
    model_name_or_path: str = field(
        default="google/vit-base-patch16-224-in21k", metadata={"help": "Checkpoint; used with --dataset_name."}
    )


def load(data: DataArguments, args: SageTrainingArguments) -> tuple[torch.nn.Module, object, Dataset, Dataset]:
    """Model, image processor, training and test rows."""
    if data.dataset_name is None:
        digits = load_noisy_digits()
        return build_vit(args.seed), None, digits.train, digits.test
    with args.main_process_first():
        splits = load_dataset(data.dataset_name, data.dataset_config)
    processor = AutoImageProcessor.from_pretrained(data.model_name_or_path)
    names = splits[data.train_split].features[data.label_column].names
    model = AutoModelForImageClassification.from_pretrained(
        data.model_name_or_path,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
        ignore_mismatched_sizes=True,
    )

    def to_pixels(rows: dict) -> dict:
        pixels = processor([image.convert("RGB") for image in rows["image"]], return_tensors="pt")["pixel_values"]
        return {"pixel_values": list(pixels), "label": rows["label"]}

    prepared = []
    for split in (data.train_split, data.test_split):
        rows = splits[split].rename_columns(
            {old: new for old, new in ((data.image_column, "image"), (data.label_column, "label")) if old != new}
        )
        prepared.append(rows.select_columns(["image", "label"]).with_transform(to_pixels))
    args.remove_unused_columns = False  # the transform needs the images
    return model, processor, *prepared


def main() -> None:
    data, args = parse([DataArguments, SageTrainingArguments], OFFLINE)
    model, processor, train, test = load(data, args)
    trainer = SageTrainer(
        model=model,
        args=args,
        train_dataset=train,
        eval_dataset=test,
        processing_class=processor,
        compute_metrics=accuracy,
    )
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    finish(trainer, dataset=data.dataset_name or "digits with wrong labels", tasks="image-classification")


if __name__ == "__main__":
    main()
