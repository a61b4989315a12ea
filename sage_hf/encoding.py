"""From rows of a dataset, raw or prepared, to batches that a model's forward takes.

    prepared     columns that the forward takes (input_ids, pixel_values, ...) pass through
    text         tokenized; for a causal language model the tokens are the labels
    dialogue     "messages" through the chat template; "prompt" + "completion" with the prompt's labels masked
    image        through the image processor

The collator, if the user gives one, has the last word.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerBase, default_data_collator

from .classes import renumbered
from .errors import DatasetError, LabelError
from .gradients.loss import IGNORE_INDEX

Row = dict[str, Any]
Collator = Callable[[list[Row]], Mapping[str, Any]]

# The first of them that a dataset has is the one that the loss sees.
LABEL_COLUMNS = ("labels", "label", "label_ids")
# Columns that tell a prepared dataset from a raw one, for models whose forward takes anything.
_INPUT_COLUMNS = ("input_ids", "inputs_embeds", "pixel_values", "input_values", "input_features")
_IMAGE_COLUMNS = ("image", "img", "images")
_TEXT_COLUMNS = ("text", "sentence", "content", "document")


@dataclass
class Encoder:
    """Encodes rows and joins them to batches.

    Attributes:
        example: The dataset's first row, which tells its columns.
        inputs: Names of the forward's arguments.
        processing_class: Tokenizer, image processor or processor; needed for raw columns and to pad.
        data_collator: The user's collator, or None.
        causal_lm: Whether tokens are their own labels.
        label_ids: The model's number of each class name, for labels that are text.
        class_ids: By column, the model's number of each of the dataset's, where the two number the same classes
            differently.
        num_labels: How many classes the model has, if it has classes.
        text_columns: The text column, or two of a pair; None finds them.
        max_length: Longest row in tokens.

    Raises:
        DatasetError: No way is known from the columns to the forward's arguments.
    """

    example: Row
    inputs: frozenset[str]
    processing_class: Any = None
    data_collator: Collator | None = None
    causal_lm: bool = False
    label_ids: Mapping[str, int] = field(default_factory=dict)
    class_ids: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    num_labels: int | None = None
    text_columns: Sequence[str] | None = None
    max_length: int = 1024

    def __post_init__(self) -> None:
        tokenizer = getattr(self.processing_class, "tokenizer", self.processing_class)
        self.tokenizer = _training_copy(tokenizer) if isinstance(tokenizer, PreTrainedTokenizerBase) else None
        if self.tokenizer is not None:
            self.max_length = min(self.max_length, self.tokenizer.model_max_length)
        self._first = 0
        self._encode = self._find_encoding()
        self._check_labels()

    # ------------------------------------------------------------------- encode
    def encode(self, rows: list[Row], first: int = 0) -> list[Row]:
        """Features of each row: lists and numbers, not yet padded.

        Args:
            rows: {column: value} each.
            first: Number of the first row in the dataset, for messages.

        Raises:
            DatasetError: A text is null or no text.
            LabelError: A label is null, unknown, or no class of the model.
        """
        self._first = first
        return self._encode(rows)

    def collate(self, features: list[Row]) -> dict[str, Any]:
        """A batch of features, padded, as tensors.

        Raises:
            DatasetError: The features have different shapes, and there is nothing to pad them with.
        """
        if self.data_collator is not None:
            return dict(self.data_collator(features))
        if self.tokenizer is not None and "input_ids" in features[0]:
            return self._pad(features)
        try:
            return dict(default_data_collator(features))
        except (ValueError, TypeError, RuntimeError) as error:
            raise DatasetError(
                f"The rows do not make a batch: {error}",
                where=f"columns {sorted(features[0])}",
                fix="Pass processing_class=tokenizer to pad them, or a data_collator.",
            ) from error

    @staticmethod
    def length(feature: Row) -> int | None:
        """Tokens of an encoded row; None where rows have no length."""
        ids = feature.get("input_ids")
        return len(ids) if ids is not None else None

    @property
    def is_tokens(self) -> bool:
        """Whether rows are short lists of tokens, of which a shard fits into memory at once and sorts by length."""
        return self.tokenizer is not None or "input_ids" in self.example

    # --------------------------------------------------------------------- find
    def _find_encoding(self) -> Callable[[list[Row]], list[Row]]:
        columns = set(self.example)
        if self.text_columns:
            missing = [name for name in self.text_columns if name not in columns]
            if missing:
                raise DatasetError(
                    f"The dataset has no column {missing}, only {sorted(columns)}",
                    where="text_columns",
                    fix="Name columns that it has.",
                )
            if self.causal_lm and len(self.text_columns) > 1:
                raise DatasetError(
                    "A causal language model reads one text a row, and two columns were named",
                    where="text_columns",
                    fix='Name one; or rename the columns to "prompt" and "completion", whose prompt is not scored.',
                )
            return self._texts(list(self.text_columns))
        if any(name in columns for name in _INPUT_COLUMNS if not self.inputs or name in self.inputs):
            return self._prepared
        if self.data_collator is not None:
            return self._handed_on
        taken = (columns & self.inputs) - set(LABEL_COLUMNS)
        if taken and self.processing_class is None:
            return self._prepared
        images = [name for name in _IMAGE_COLUMNS if name in columns]
        if images and self._image_processor() is not None:
            return self._images(images[0])
        if self.tokenizer is not None:
            if "messages" in columns:
                return self._dialogues
            if {"prompt", "completion"} <= columns:
                return self._completions(["prompt"], "completion")
            named = [name for name in _TEXT_COLUMNS if name in columns]
            if named:
                return self._texts(named[:1])
            if {"instruction", "output"} <= columns:
                return self._completions(["instruction", "input"], "output")
            texts = [
                name for name, value in self.example.items() if isinstance(value, str) and name not in LABEL_COLUMNS
            ]
            if len(texts) == 1 or (len(texts) == 2 and not self.causal_lm):
                return self._texts(texts)
        raise DatasetError(
            f"No way is known from the columns {sorted(columns)} to the model's inputs {sorted(self.inputs)[:12]}",
            where="dataset",
            fix="Pass processing_class (a tokenizer or image processor) and, for several texts, text_columns; "
            "or prepare the dataset, or pass a data_collator.",
        )

    def _check_labels(self) -> None:
        """A dataset without labels would only fail after the model has run."""
        if self.causal_lm or self.data_collator is not None:
            return
        known = self.inputs - {"input_ids"}
        found = [name for name in self.example if name in LABEL_COLUMNS or (name in known and "label" in name)]
        positions = [name for name in self.example if name.endswith("_positions") and name in known]
        if not found and not positions and "labels" in self.inputs:
            raise LabelError(
                f"The dataset has no label column, only {sorted(self.example)}",
                where="dataset",
                fix="Name the column 'label' or 'labels' (dataset.rename_column), or use a causal language model.",
            )

    def _image_processor(self) -> Any:
        processor = getattr(self.processing_class, "image_processor", self.processing_class)
        names = getattr(processor, "model_input_names", [])
        return processor if "pixel_values" in names else None

    # ---------------------------------------------------------------- encodings
    @property
    def hands_rows_on(self) -> bool:
        """Whether the user's collator gets the rows as they are, with the dataset's own class numbers."""
        return self._encode == self._handed_on

    def _handed_on(self, rows: list[Row]) -> list[Row]:
        return rows

    def _prepared(self, rows: list[Row]) -> list[Row]:
        takes_all = not self.inputs
        labels = self._label_column(rows[0])
        kept = [
            name
            for name in rows[0]
            if name == labels or (name not in LABEL_COLUMNS and (takes_all or name in self.inputs))
        ]
        features = [{name: row[name] for name in kept} for row in rows]
        if labels is not None:
            for number, feature in enumerate(features):
                feature[labels] = self._label(feature[labels], labels, number)
        elif self.causal_lm and self.data_collator is None:
            for feature in features:
                seen = feature.get("attention_mask", [1] * len(feature["input_ids"]))
                feature["labels"] = [
                    int(token) if keep else IGNORE_INDEX
                    for token, keep in zip(feature["input_ids"], seen, strict=True)
                ]
        return features

    def _texts(self, columns: list[str]) -> Callable[[list[Row]], list[Row]]:
        tokenizer = self._need_tokenizer(columns)

        def encode(rows: list[Row]) -> list[Row]:
            texts = [self._strings(rows, column) for column in columns]
            if self.causal_lm:
                return [self._as_own_labels(ids) for ids in tokenizer(texts[0]).input_ids]
            tokens = tokenizer(*texts, truncation=True, max_length=self.max_length)
            features = [dict(zip(tokens.keys(), values, strict=True)) for values in zip(*tokens.values(), strict=True)]
            return self._with_labels(features, rows)

        return encode

    def _strings(self, rows: list[Row], column: str) -> list[str]:
        for number, row in enumerate(rows):
            if not isinstance(row[column], str):
                raise DatasetError(
                    f"Row {self._first + number} holds {row[column]!r}, and a text is needed",
                    where=f"column {column!r}",
                    fix="Filter or fill such rows, or name another column with text_columns.",
                )
        return [row[column] for row in rows]

    def _dialogues(self, rows: list[Row]) -> list[Row]:
        tokenizer = self._need_tokenizer(["messages"])
        if tokenizer.chat_template is None:
            raise DatasetError(
                "The tokenizer has no chat template to join messages with",
                where="processing_class",
                fix="Set tokenizer.chat_template, or bring the rows into a text or prompt and completion column.",
            )
        tokens = [tokenizer.apply_chat_template(row["messages"], tokenize=True, return_dict=True) for row in rows]
        return [self._as_own_labels(list(each["input_ids"]), end=False) for each in tokens]

    def _completions(self, prompts: list[str], completion: str) -> Callable[[list[Row]], list[Row]]:
        tokenizer = self._need_tokenizer([*prompts, completion])

        def encode(rows: list[Row]) -> list[Row]:
            asked = ["\n".join(row[name] for name in prompts if row.get(name)) for row in rows]
            if len(prompts) > 1:
                asked = [f"{text}\n" for text in asked]
            before = tokenizer(asked).input_ids
            after = tokenizer(self._strings(rows, completion), add_special_tokens=False).input_ids
            return [self._as_own_labels(ids + more, masked=len(ids)) for ids, more in zip(before, after, strict=True)]

        return encode

    def _images(self, column: str) -> Callable[[list[Row]], list[Row]]:
        processor = self._image_processor()

        def encode(rows: list[Row]) -> list[Row]:
            pixels = processor([row[column].convert("RGB") for row in rows], return_tensors="pt")["pixel_values"]
            return self._with_labels([{"pixel_values": image} for image in pixels], rows)

        return encode

    def _need_tokenizer(self, columns: list[str]) -> PreTrainedTokenizerBase:
        if self.tokenizer is None:
            raise DatasetError(
                f"The columns {columns} are text, and there is no tokenizer",
                where="processing_class",
                fix="Pass processing_class=AutoTokenizer.from_pretrained(...).",
            )
        return self.tokenizer

    def _as_own_labels(self, ids: list[int], masked: int = 0, end: bool = True) -> Row:
        """Features of a causal language model: the tokens are the labels, but for the first `masked`."""
        assert self.tokenizer is not None
        stop = self.tokenizer.eos_token_id
        if end and stop is not None and ids[-1:] != [stop]:
            ids = [*ids, stop]
        ids = ids[: self.max_length]
        labels = [IGNORE_INDEX] * min(masked, len(ids)) + ids[masked:]
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}

    def _label_column(self, row: Row) -> str | None:
        """The column that the loss is to see; a class is none for a causal language model."""
        columns = [name for name in LABEL_COLUMNS if name in row]
        if self.causal_lm and self.data_collator is None:
            columns = [name for name in columns if isinstance(row[name], (list, Tensor))]
        return columns[0] if columns else None

    def _with_labels(self, features: list[Row], rows: list[Row]) -> list[Row]:
        column = self._label_column(rows[0])
        if column is not None:
            for number, (feature, row) in enumerate(zip(features, rows, strict=True)):
                feature["labels"] = self._label(row[column], column, number)
        return features

    def _label(self, value: Any, column: str, number: int) -> Any:
        where = f"column {column!r}, row {self._first + number}"
        if (ids := self.class_ids.get(column)) is not None:
            value = renumbered(value, ids)
        if value is None:
            raise LabelError("The label is null", where=where, fix="Filter or fill such rows.")
        if isinstance(value, str):
            if value not in self.label_ids:
                raise LabelError(
                    f"The model knows no class {value!r}, only {list(self.label_ids)[:12]}",
                    where=where,
                    fix="Set label2id in the model's config, or encode the column (dataset.class_encode_column).",
                )
            return self.label_ids[value]
        if isinstance(value, (bool, int)):
            classes = self.num_labels
            if classes is not None and classes > 1 and not 0 <= value < classes and value != IGNORE_INDEX:
                raise LabelError(
                    f"The label is {value}, and the model has the classes 0 to {classes - 1}",
                    where=where,
                    fix="Load the model with the right num_labels, or number the classes from 0.",
                )
            return int(value)
        return value

    def _pad(self, features: list[Row]) -> dict[str, Any]:
        assert self.tokenizer is not None
        name = self._label_column(features[0])
        first = None if name is None else features[0][name]
        if isinstance(first, (list, Tensor)) and not isinstance(first[0], float):
            return dict(DataCollatorForSeq2Seq(self.tokenizer)(features))
        inputs = [{key: value for key, value in feature.items() if key != name} for feature in features]
        batch = dict(self.tokenizer.pad(inputs, return_tensors="pt"))
        if name is not None:
            batch["labels"] = torch.tensor([feature[name] for feature in features])
        return batch


def _training_copy(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy that pads on the right with some token.

    On the right, because with padding on the left a model with absolute positions sees a row at another place than
    alone. The user's tokenizer stays as it is.
    """
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.padding_side = "right"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer
