"""Selects a tenth of a text dataset, shares it on the Hub with its story, and takes it back from there.

    python examples/select_and_push.py --repo-id me/topics-10pct --private
    accelerate launch examples/select_and_push.py --repo-id me/imdb-10pct \
        --dataset-name stanfordnlp/imdb --model-name-or-path textattack/bert-base-uncased-imdb

Without --dataset-name: paragraphs of the Python language reference by topic, and a small BERT built from a config and
trained for a moment; the only network is the push. It needs a login (`hf auth login`) or HF_TOKEN.
"""

from __future__ import annotations

import argparse

from accelerate import PartialState
from datasets import Dataset, load_dataset
from python_text import build_bert, topic_classes, train_tokenizer
from rich.console import Console
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from sage_hf import SageConfig, SageSelector, Selection
from sage_hf.selection.report import summary
from sage_hf.training.warmup import warm_up


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repo-id", required=True, help="dataset repository: owner/name, or a name of your own")
    parser.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    parser.add_argument("--license", help="of what is pushed; the source's by default")
    parser.add_argument("--fraction", type=float, default=0.1, help="share of the rows to keep")
    parser.add_argument("--dataset-name", help="Hub id with columns text and label; the language reference by default")
    parser.add_argument("--model-name-or-path", help="classifier trained on that task; needed with --dataset-name")
    parser.add_argument("--warmup-steps", type=int, default=100, help="training steps of the small BERT")
    arguments = parser.parse_args()
    if (arguments.dataset_name is None) != (arguments.model_name_or_path is None):
        parser.error("--dataset-name and --model-name-or-path go together")
    return arguments


def load_offline(config: SageConfig, steps: int) -> tuple[Dataset, Dataset, PreTrainedModel, PreTrainedTokenizerBase]:
    """Train and test rows, and a classifier that was trained for a moment, with its tokenizer."""
    splits = topic_classes().train_test_split(test_size=0.25, seed=0, stratify_by_column="label")
    train, test = splits["train"], splits["test"]
    tokenizer = train_tokenizer(list(train["text"]))
    tokenizer.pad_token = tokenizer.eos_token
    model = build_bert(len(tokenizer), train.features["label"].num_classes)
    warm_up(model, train, steps=steps, learning_rate=1e-3, processing_class=tokenizer, config=config)
    return train, test, model, tokenizer


def main() -> None:
    arguments = read_arguments()
    config = SageConfig(fraction=arguments.fraction, group_by="label", max_length=256)
    if arguments.dataset_name is not None:
        train = load_dataset(arguments.dataset_name, split="train")
        model = AutoModelForSequenceClassification.from_pretrained(arguments.model_name_or_path)
        tokenizer = AutoTokenizer.from_pretrained(arguments.model_name_or_path)
        others = None  # they are found where the source came from
    else:
        train, test, model, tokenizer = load_offline(config, arguments.warmup_steps)
        others = {"test": test}

    selection = SageSelector(model, processing_class=tokenizer, config=config).select(train)
    # In a launch of several processes, the main one pushes.
    about = {"private": arguments.private, "license": arguments.license, "other_splits": others}
    pushed = selection.push_to_hub(arguments.repo_id, **about)

    if pushed is not None:
        Console().print(summary(selection))
        repository = pushed.repo_url.repo_id
        # What others do: load the rows,
        rows = load_dataset(repository)
        print(f"Pushed to {pushed.repo_url}: {', '.join(f'{name} {len(part)} rows' for name, part in rows.items())}.")
        # or choose another share of the source by the same scores, without a model.
        smaller = Selection.from_hub(repository, train).choose(fraction=arguments.fraction / 2, strategy="agreement")
        print(f"By the same scores: {len(smaller.dataset)} rows at a fraction of {arguments.fraction / 2:g}.")
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main()
