"""Trains a text classifier on a subset that follows it.

    python examples/run_classification.py --output_dir out/topics
    accelerate launch examples/run_classification.py --output_dir out/imdb --dataset_name stanfordnlp/imdb \
        --model_name_or_path distilbert/distilbert-base-uncased --sage_fraction 0.1 --num_train_epochs 3

Without --dataset_name: paragraphs of the Python language reference by topic, a fifth of the labels wrong, and a small
BERT built from a config; no network, about a minute on two cores.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from datasets import Dataset, load_dataset
from python_text import build_bert, topic_classes, train_tokenizer
from running import accuracy, finish, parse, with_wrong_labels
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from sage_hf import SageTrainer, SageTrainingArguments

OFFLINE = {
    "num_train_epochs": 12,
    "learning_rate": 1e-3,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 64,
    "logging_strategy": "epoch",
    "save_strategy": "no",
    "report_to": "none",
    "sage_fraction": 0.2,
    "sage_warmup_epochs": 6.0,
    "sage_refresh_epochs": 3,
    "max_length": 128,
    "wrong_labels": 0.2,
}


@dataclass
class DataArguments:
    """Which data and which model."""

    dataset_name: str | None = field(
        default=None, metadata={"help": "Hub id or folder; the language reference by default."}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "The dataset's configuration."})
    train_split: str = field(default="train", metadata={"help": "Split to train on."})
    test_split: str = field(default="test", metadata={"help": "Split to evaluate on."})
    text_column: str = field(default="text", metadata={"help": "Column with the text."})
    second_text_column: str | None = field(default=None, metadata={"help": "Column with the second text of a pair."})
    label_column: str = field(default="label", metadata={"help": "Column with the classes."})
    max_length: int = field(default=256, metadata={"help": "Longest row in tokens."})
    wrong_labels: float = field(default=0.0, metadata={"help": "Share of the training labels to make wrong."})
    model_name_or_path: str = field(
        default="distilbert/distilbert-base-uncased", metadata={"help": "Checkpoint; used with --dataset_name."}
    )


def load(
    data: DataArguments, args: SageTrainingArguments
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Dataset, Dataset]:
    """Model, tokenizer, training and test rows with columns of text and a label."""
    if data.dataset_name is None:
        parts = topic_classes().train_test_split(test_size=0.25, seed=0, stratify_by_column="label")
        tokenizer = train_tokenizer(list(parts["train"]["text"]))
        tokenizer.pad_token = tokenizer.eos_token
        model = build_bert(len(tokenizer), parts["train"].features["label"].num_classes)
        return model, tokenizer, parts["train"], parts["test"]
    with args.main_process_first():
        splits = load_dataset(data.dataset_name, data.dataset_config)
    if data.label_column != "label":
        splits = splits.rename_column(data.label_column, "label")
    names = splits[data.train_split].features["label"].names
    tokenizer = AutoTokenizer.from_pretrained(data.model_name_or_path)
    model = AutoModelForSequenceClassification.from_pretrained(
        data.model_name_or_path,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
    )
    return model, tokenizer, splits[data.train_split], splits[data.test_split]


def main() -> None:
    data, args = parse([DataArguments, SageTrainingArguments], OFFLINE)
    model, tokenizer, train, test = load(data, args)
    train = with_wrong_labels(train, data.wrong_labels)
    columns = [name for name in (data.text_column, data.second_text_column) if name]

    def to_tokens(rows: dict) -> dict:
        return tokenizer(*(rows[name] for name in columns), truncation=True, max_length=data.max_length)

    with args.main_process_first():
        train, test = (part.map(to_tokens, batched=True) for part in (train, test))
    trainer = SageTrainer(
        model=model,
        args=args,
        train_dataset=train,
        eval_dataset=test,
        processing_class=tokenizer,
        compute_metrics=accuracy,
    )
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    finish(trainer, dataset=data.dataset_name or "the Python language reference", tasks="text-classification")


if __name__ == "__main__":
    main()
