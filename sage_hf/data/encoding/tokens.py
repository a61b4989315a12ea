"""Texts as token ids: for a language model with the tokens as labels, for any other model as they are."""

from __future__ import annotations

import copy

from transformers import PreTrainedTokenizerBase

from ...errors import DatasetError
from ...gradients.losses.per_example import IGNORE_INDEX
from .dialogues import common_length
from .rows import Row, Unfit, each, is_list, shown

# An instruction may come with an input of its own.
INPUT = "input"
INSTRUCTION = ("instruction", INPUT)
# Of prepared rows of a language model without labels: which tokens are trained on, as trl reads them.
LOSS_MASKS = ("completion_mask", "assistant_masks")


def training_copy(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy that pads on the right with some token.

    On the right, because with padding on the left a model with absolute positions sees a row at another place than
    alone. The user's tokenizer stays as it is.
    """
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.padding_side = "right"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def texts_of(rows: list[Row], column: str, first: int) -> list[str]:
    """The texts of a column.

    Raises:
        DatasetError: Some are null, or no text.
    """

    def text(value: object) -> str:
        if isinstance(value, str):
            return value
        raise Unfit(
            f"The row holds {shown(value)}, but a text is needed",
            "Filter or fill such rows, or name another column with text_columns.",
        )

    return each(text, (row[column] for row in rows), DatasetError, column, first)


def instructions_of(rows: list[Row], column: str, first: int) -> list[str]:
    """Instructions with their input, where there is one, each on lines of its own.

    Raises:
        DatasetError: An instruction is null, or no text.
    """
    asked = texts_of(rows, column, first)
    inputs = texts_of([{INPUT: row.get(INPUT) or ""} for row in rows], INPUT, first)
    return ["\n".join([text, *([more] if more else []), ""]) for text, more in zip(asked, inputs, strict=True)]


def ended(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[str]:
    """Texts that end with the end of a text, as they do in trl's training."""
    stop = tokenizer.eos_token
    return [text if stop is None or text.endswith(stop) else text + stop for text in texts]


def completed_ids(
    tokenizer: PreTrainedTokenizerBase, prompts: list[str], completions: list[str]
) -> list[tuple[list[int], int]]:
    """Token ids of prompts with their completions, and how many of them are the prompt's alone."""
    asked = tokenizer(prompts).input_ids
    texts = [prompt + text for prompt, text in zip(prompts, ended(tokenizer, completions), strict=True)]
    return [(ids, common_length(before, ids)) for before, ids in zip(asked, tokenizer(texts).input_ids, strict=True)]


def as_own_labels(ids: list[int], most: int, masked: int = 0) -> Row:
    """Features of a causal language model: the tokens are the labels, but for the first `masked`."""
    ids = ids[:most]
    labels = [IGNORE_INDEX] * min(masked, len(ids)) + ids[masked:]
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}


def learned_labels(feature_and_row: tuple[Row, Row]) -> list[int]:
    """The tokens that a language model learns from: all that it sees and no mask of the loss leaves out."""
    feature, row = feature_and_row
    if "input_ids" not in feature:
        raise Unfit(
            "Rows of vectors (in place of tokens) cannot be their own labels",
            "Add a column labels with the token that each position is to predict.",
        )
    ids = feature["input_ids"]
    masks = [row[name] for name in ("attention_mask", *LOSS_MASKS) if is_list(row.get(name))]
    if any(len(mask) != len(ids) for mask in masks):
        raise Unfit(f"The row has {len(ids)} tokens, and a mask of another length", "Give each token one number.")
    return [int(token) if all(seen) else IGNORE_INDEX for token, *seen in zip(ids, *masks, strict=True)]
