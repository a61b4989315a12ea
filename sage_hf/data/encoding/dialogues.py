"""Dialogues as token ids, by the tokenizer's chat template: the text that trl's SFTTrainer trains on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from ...errors import DatasetError
from .rows import Row, Unfit, as_unfit, each, is_list, shown

TURN_COLUMNS = ("messages", "conversations")
# Columns beside the turns that a template gets, as trl gives them to it.
BESIDE_TURNS = ("tools", "chat_template_kwargs")

_TURNS = 'Give each row a list of {"role": ..., "content": ...}.'
_TEMPLATE = "Fix the rows (such as their roles and their order), or set another tokenizer.chat_template."


def check_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuses a tokenizer that cannot join turns.

    Raises:
        DatasetError: It has no chat template.
    """
    if tokenizer.chat_template is None:
        raise DatasetError(
            "The tokenizer has no chat template to join messages with",
            where="processing_class",
            fix="Set tokenizer.chat_template, or give the dataset a text column, or a prompt and a completion column.",
        )


def dialogue_ids(tokenizer: PreTrainedTokenizerBase, rows: list[Row], column: str, first: int) -> list[list[int]]:
    """The token ids of whole dialogues.

    Args:
        tokenizer: A tokenizer with a chat template.
        rows: Dialogues, with or without `BESIDE_TURNS`.
        column: Column of the turns: a list of role and content, or of from and value.
        first: Number of the first row in the dataset.

    Raises:
        DatasetError: A row holds no turns, or turns that the template refuses.
    """

    def encode(row: Row) -> list[int]:
        return _templated(tokenizer, turns(row[column]), row)

    return each(encode, rows, DatasetError, column, first)


def answered_ids(tokenizer: PreTrainedTokenizerBase, rows: list[Row], first: int) -> list[tuple[list[int], int]]:
    """Token ids of prompts with their completions, both lists of turns, and how many of them are the prompt's.

    Arguments and errors as of `dialogue_ids`, with the columns "prompt" and "completion".
    """

    def encode(row: Row) -> tuple[list[int], int]:
        prompt, completion = turns(row["prompt"]), turns(row["completion"])
        asked = _templated(tokenizer, prompt, row, add_generation_prompt=True)
        whole = _templated(tokenizer, prompt + completion, row)
        return whole, common_length(asked, whole)

    return each(encode, rows, DatasetError, "prompt and completion", first)


def turns(value: Any) -> list[dict[str, Any]]:
    """A dialogue's turns with role and content.

    The roles of from and value turns stay as they are ("human" stays "human"), as they do in trl.

    Raises:
        Unfit: It is no list of turns.
    """
    if value is None or isinstance(value, str) or not is_list(value):
        kind = "null" if value is None else f"a {type(value).__name__} ({shown(value)})"
        parse = "Parse it with json.loads in dataset.map. " if isinstance(value, str) else ""
        raise Unfit(f"The row holds {kind}, but a list of turns is needed", f"{parse}{_TURNS}")
    if not len(value):
        raise Unfit("The row has no turns", "Filter such rows.")
    return [_turn(turn) for turn in value]


def common_length(ids: list[int], others: list[int]) -> int:
    """How many ids two lists begin alike with.

    A template may render a prompt otherwise when an answer follows, and tokens may merge where the two meet.
    """
    return next(
        (place for place, (one, other) in enumerate(zip(ids, others, strict=False)) if one != other),
        min(len(ids), len(others)),
    )


def _turn(turn: Any) -> dict[str, Any]:
    if not isinstance(turn, Mapping):
        raise Unfit(f"A turn is not a dictionary: {shown(turn)}", _TURNS)
    # Arrow gives every turn of a dataset the keys of all: what a turn has not is null.
    held = {key: value for key, value in turn.items() if value is not None}
    for name, meant in (("from", "role"), ("value", "content")):
        if name in held and meant not in held:
            held[meant] = held.pop(name)
    if "role" not in held:
        raise Unfit(f"A turn has neither role and content nor from and value, only {sorted(turn)}", _TURNS)
    if set(held) == {"role"}:
        raise Unfit(f"A turn of the role {held['role']!r} is empty", "Fill its content, or filter such rows.")
    return held


def _templated(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, Any]], row: Row, **options: Any
) -> list[int]:
    tools = row.get("tools")
    if isinstance(tools, str):
        with as_unfit("Make tools a list, or JSON text of one."):
            tools = json.loads(tools)
    settings = {"tools": tools, **(row.get("chat_template_kwargs") or {}), **options}
    with as_unfit(_TEMPLATE):
        made = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **settings)
    return list(made["input_ids"])
