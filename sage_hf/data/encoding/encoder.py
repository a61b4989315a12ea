"""From rows of a dataset, raw or prepared, to batches that a model's forward takes.

    prepared     columns that the forward takes (input_ids, pixel_values, ...) pass through
    text         tokenized; for a causal language model the tokens are the labels
    dialogue     "messages" through the chat template; "prompt" + "completion" with the prompt's labels masked
    image        through the image processor

Language is encoded as trl's SFTTrainer encodes it. The collator, if the user gives one, has the last word.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from transformers import PreTrainedTokenizerBase, default_data_collator

from ...errors import DatasetError, LabelError
from .collators import collated, is_of_library
from .dialogues import BESIDE_TURNS, TURN_COLUMNS, answered_ids, check_template, dialogue_ids
from .images import IMAGE_COLUMNS, as_images
from .labels import Labels
from .limits import Limits
from .model import ModelFacts
from .padding import MASK, TOKENS, Padding, has_any, tokens_in
from .rows import LABEL_COLUMNS, Collator, Encoding, Row, each, is_list
from .tokens import (
    INSTRUCTION,
    LOSS_MASKS,
    as_own_labels,
    completed_ids,
    ended,
    instructions_of,
    learned_labels,
    texts_of,
    training_copy,
)
from .uneven import misfits
from .values import check_column, check_filled, check_tokens

# Columns that tell a prepared dataset from a raw one, for models whose forward takes anything.
INPUT_COLUMNS = ("input_ids", "inputs_embeds", "pixel_values", "input_values", "input_features")
TEXT_PAIR = "text_pair"
TEXT_COLUMNS = ("text", "sentence", "content", "document")


@dataclass
class Encoder:
    """Encodes rows and joins them to batches.

    Attributes:
        example: The dataset's first row, which tells its columns; media may be undecoded in it.
        model: What is known of the model.
        processing_class: Tokenizer, image processor or processor; needed for raw columns and to pad.
        data_collator: The user's collator, or None.
        text_columns: The text column, or two of a pair; None finds them.
        max_length: Longest row in tokens.
        image_top: Result of `images.brightest` for the dataset.
        columns: Columns that are read; None where all are.

    Raises:
        DatasetError: No way is known from the columns to the forward's arguments.
    """

    example: Row
    model: ModelFacts
    processing_class: Any = None
    data_collator: Collator | None = None
    text_columns: Sequence[str] | None = None
    max_length: int = 1024
    image_top: int | None = None
    columns: frozenset[str] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        tokenizer = getattr(self.processing_class, "tokenizer", self.processing_class)
        self.tokenizer = training_copy(tokenizer) if isinstance(tokenizer, PreTrainedTokenizerBase) else None
        most = self.tokenizer.model_max_length if self.tokenizer is not None else self.max_length
        self.max_length = min(self.max_length, self.model.longest or self.max_length, most)
        facts = self.model
        self._labels = Labels(facts.task, facts.label_ids, facts.num_labels, facts.problem_type)
        self._encode, needed = self._find_encoding()
        if needed is not None:
            self.columns = frozenset(name for name in self.example if name in needed or name in LABEL_COLUMNS)
        self._padding = self._find_padding()
        self._gives_all = self.data_collator is not None and not is_of_library(self.data_collator)
        self._limits = facts.limits
        if self.data_collator is not None:  # it may truncate rows, and make labels of its own
            counts = {name: count for name, count in facts.limits.counts.items() if name == "input_ids"}
            self._limits = Limits(counts, None, ())
        self._check_labels()
        self._needed = self._find_needed()

    # ------------------------------------------------------------------- encode
    def encode(self, rows: list[Row], first: int = 0) -> list[Row]:
        """Features of each row: lists and numbers, not yet padded.

        Args:
            rows: {column: value} each.
            first: Number of the first row in the dataset, for messages.

        Raises:
            DatasetError: A text is null or no text, a dialogue has no turns, an image cannot be read, or a row holds
                what the model has no place for.
            LabelError: A label is null, unknown, or no class of the model.
        """
        if not rows:
            return []
        for name in self._needed:
            each(partial(check_column, name), rows, DatasetError, name, first)
        features = self._encode(rows, first)
        self._limits.check(features, first)
        return features

    def collate(self, features: list[Row]) -> dict[str, Any]:
        """A batch of features, padded, as tensors.

        Raises:
            DatasetError: The features have different shapes, and there is nothing to pad them with; or the user's
                collator fails.
        """
        if self.data_collator is not None:
            is_prepared = any(name in features[0] and self._takes(name) for name in INPUT_COLUMNS)
            kept = self._kept(features[0], self._label_column(features)) if is_prepared and self.model.inputs else None
            return collated(self.data_collator, features, kept)
        if any(name in features[0] for name in TOKENS):
            try:
                return dict(self._padding.batch(features))
            except DatasetError:
                if (offence := misfits(features, is_padded=True)) is not None:
                    raise offence.without_rows() from offence
                raise
        try:
            return dict(default_data_collator(features))
        except (ValueError, TypeError, RuntimeError) as error:
            if (offence := misfits(features, is_padded=False)) is not None:
                raise offence.without_rows() from offence
            raise DatasetError(
                f"The rows do not make a batch: {error}",
                where=f"columns {sorted(features[0])}",
                fix="Pass processing_class=tokenizer to pad them, or a data_collator.",
            ) from error

    @staticmethod
    def length(feature: Row) -> int | None:
        """Tokens of an encoded row, 0 where the model is to see none of them; None where rows have no length."""
        name = next((name for name in TOKENS if feature.get(name) is not None), None)
        if name is None:
            return None
        if is_list(mask := feature.get(MASK)) and not has_any(mask):
            return 0
        return tokens_in(feature[name], name)

    @property
    def causal_lm(self) -> bool:
        """Whether tokens are their own labels."""
        return self.model.task == "causal"

    @property
    def is_tokens(self) -> bool:
        """Whether rows are short lists of tokens, of which a shard fits into memory at once and sorts by length."""
        return self.tokenizer is not None or "input_ids" in self.example

    # --------------------------------------------------------------------- find
    def _find_encoding(self) -> tuple[Encoding, set[str] | None]:
        """The way from rows to features, and the columns that it needs; None for all."""
        columns = set(self.example)
        if self.text_columns:
            return self._named_texts(list(self.text_columns))
        if any(name in columns and self._takes(name) for name in INPUT_COLUMNS):
            return self._prepared, self._prepared_columns()
        if self.data_collator is not None:
            return self._handed_on, None
        taken = (columns & self.model.inputs) - set(LABEL_COLUMNS)
        if taken and self.processing_class is None:
            return self._prepared, self._prepared_columns()
        if self._takes("pixel_values") and self._image_processor() is not None:
            images = [name for name in IMAGE_COLUMNS if name in columns]
            if images:
                return partial(self._images, images[0]), {images[0]}
        language = self._find_language(columns) if self._takes("input_ids") and self.tokenizer is not None else None
        if language is not None:
            return language
        if taken:
            return self._prepared, self._prepared_columns()
        inputs = sorted(self.model.inputs)[:12]
        raise DatasetError(
            f"It is not known how to make the model's inputs {inputs} from the columns {sorted(columns)}",
            where="dataset",
            fix="Pass processing_class (a tokenizer or image processor) and, for several texts, text_columns; "
            "or prepare the dataset, or pass a data_collator.",
        )

    def _find_language(self, columns: set[str]) -> tuple[Encoding, set[str]] | None:
        pairs: list[tuple[tuple[str, ...], str]] = [(("prompt",), "completion"), (INSTRUCTION, "output")]
        asked, answer = next((pair for pair in pairs if {pair[0][0], pair[1]} <= columns), ((), ""))
        dialogues = [name for name in TURN_COLUMNS if name in columns]
        named = [name for name in TEXT_COLUMNS if name in columns]
        if answer == "completion" or (answer and not dialogues and not named):
            encode = self._turns_answered if is_list(self.example[asked[0]]) else partial(self._answers, asked, answer)
            return encode, {*asked, answer, *BESIDE_TURNS}
        if dialogues:
            return partial(self._dialogues, dialogues[0]), {dialogues[0], *BESIDE_TURNS}
        if named:
            # The tokenizer's own word for the second text of a pair.
            pair = [TEXT_PAIR] if TEXT_PAIR in columns and not self.causal_lm and not self._is_seq2seq else []
            return partial(self._texts, [*named[:1], *pair]), {*named[:1], *pair}
        texts = [name for name, value in self.example.items() if isinstance(value, str) and name not in LABEL_COLUMNS]
        if len(texts) == 1 or (len(texts) == 2 and not self.causal_lm):
            return partial(self._texts, texts), set(texts)
        return None

    def _named_texts(self, names: list[str]) -> tuple[Encoding, set[str]]:
        missing = [name for name in names if name not in self.example]
        if missing:
            raise DatasetError(
                f"The dataset has no column {missing}, only {sorted(self.example)}",
                where="text_columns",
                fix="Name columns that it has.",
            )
        if self.causal_lm and len(names) > 1:
            raise DatasetError(
                "A causal language model reads one text a row, but two columns were named",
                where="text_columns",
                fix='Name one; or rename the columns to "prompt" and "completion", whose prompt is not scored.',
            )
        if self.tokenizer is None:
            raise DatasetError(
                f"The columns {names} are text, and there is no tokenizer",
                where="processing_class",
                fix="Pass processing_class=AutoTokenizer.from_pretrained(...).",
            )
        if len(names) == 1 and is_list(self.example[names[0]]):
            return partial(self._dialogues, names[0]), {names[0], *BESIDE_TURNS}
        return partial(self._texts, names), set(names)

    @property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        assert self.tokenizer is not None
        return self.tokenizer

    @property
    def _is_seq2seq(self) -> bool:
        return self.model.task == "seq2seq"

    def _takes(self, name: str) -> bool:
        return not self.model.inputs or name in self.model.inputs

    def _prepared_columns(self) -> set[str] | None:
        if self.data_collator is not None or not self.model.inputs:
            return None
        return {*self.model.inputs, *(LOSS_MASKS if self.causal_lm else ())}

    def _find_needed(self) -> list[str]:
        """Columns that no row may lack; a row of a stream need not have what the first one has."""
        if self.hands_rows_on or self._gives_all:  # the user's collator may do without
            return []
        label, spare = self._label_column([self.example]), {*LABEL_COLUMNS, *BESIDE_TURNS, *LOSS_MASKS}
        read = self.example if self.columns is None else self.columns
        return [name for name in self.example if name == label or (name in read and name not in spare)]

    def _find_padding(self) -> Padding:
        """What rows are filled up with: some token, where the model is told that it is none of the row's."""
        tokens = [self.model.pad_token_id, 0]
        if self.tokenizer is not None:
            tokens.insert(0, self.tokenizer.pad_token_id)
        known = self.model.limits.counts.get("input_ids", sys.maxsize)
        token = next(token for token in tokens if token is not None and 0 <= token < known)
        if self.tokenizer is None:
            takes_mask = self._takes(MASK)
            return Padding(token if takes_mask else None, adds_mask=takes_mask)
        has_mask = MASK in self.tokenizer.model_input_names
        return Padding(token, self.tokenizer.pad_token_type_id, adds_mask=has_mask, always_masks=has_mask)

    def _check_labels(self) -> None:
        """A dataset without labels would only fail after the model has run."""
        writes = self._is_seq2seq and {"prompt", "completion"} <= set(self.example)
        if self.causal_lm or self.data_collator is not None or writes:
            return
        known = self.model.inputs - {"input_ids"}
        is_labelled = any(
            name in LABEL_COLUMNS or (name in known and ("label" in name or name.endswith("_positions")))
            for name in self.example
        )
        if not is_labelled and "labels" in self.model.inputs:
            raise LabelError(
                f"The dataset has no label column, only {sorted(self.example)}",
                where="dataset",
                fix="Name the column 'label' or 'labels' (dataset.rename_column), or use a causal language model.",
            )

    def _image_processor(self) -> Any:
        processor = getattr(self.processing_class, "image_processor", self.processing_class)
        names = getattr(processor, "model_input_names", [])
        return processor if "pixel_values" in names else None

    @property
    def hands_rows_on(self) -> bool:
        """Whether the user's collator gets the rows as they are, with the dataset's own class numbers."""
        return self._encode == self._handed_on

    def map_classes(self, class_ids: Mapping[str, Mapping[int, int]]) -> None:
        """Has labels renumbered; by column, the model's number of each of the dataset's."""
        self._labels = replace(self._labels, class_ids=class_ids)

    # ---------------------------------------------------------------- encodings
    def _handed_on(self, rows: list[Row], first: int) -> list[Row]:
        return rows

    def _prepared(self, rows: list[Row], first: int) -> list[Row]:
        column = self._label_column(rows)
        if self._gives_all:  # the user's collator may know labels that the model does not
            features = [dict(row) for row in rows]
            with suppress(LabelError):
                self._set_labels(features, rows, column, first)
            return features
        kept = self._kept(rows[0], column)
        features = [{name: row[name] for name in kept} for row in rows]
        for name in kept:
            if name in self.model.inputs and name != column and self.data_collator is None:
                check = check_tokens if name == "input_ids" else check_filled
                each(check, (feature[name] for feature in features), DatasetError, name, first)
        if column is None and self.causal_lm and self.data_collator is None:
            made = each(learned_labels, zip(features, rows, strict=True), DatasetError, "input_ids", first)
            for feature, labels in zip(features, made, strict=True):
                feature["labels"] = labels
        return self._set_labels(features, rows, column, first)

    def _kept(self, row: Row, label: str | None) -> list[str]:
        """The columns that the forward takes, and the one of the labels."""
        return [name for name in row if name == label or (name not in LABEL_COLUMNS and self._takes(name))]

    def _texts(self, columns: list[str], rows: list[Row], first: int) -> list[Row]:
        texts = [texts_of(rows, column, first) for column in columns]
        if self.causal_lm:
            ids = self._tokenizer(ended(self._tokenizer, texts[0])).input_ids
            return self._of_ids([(row, 0) for row in ids], rows, first)
        return self._with_labels(self._features(*texts), rows, first)

    def _answers(self, asked: tuple[str, ...], answer: str, rows: list[Row], first: int) -> list[Row]:
        completions = texts_of(rows, answer, first)
        read = texts_of if asked == ("prompt",) else instructions_of
        prompts = read(rows, asked[0], first)
        if self.causal_lm:
            return self._of_ids(completed_ids(self._tokenizer, prompts, completions), rows, first)
        if self._is_seq2seq:
            features = self._features(prompts)
            labels = self._tokenizer(text_target=completions, truncation=True, max_length=self.max_length).input_ids
            return [{**feature, "labels": ids} for feature, ids in zip(features, labels, strict=True)]
        return self._with_labels(self._features(prompts, completions), rows, first)

    def _turns_answered(self, rows: list[Row], first: int) -> list[Row]:
        check_template(self._tokenizer)
        return self._of_ids(answered_ids(self._tokenizer, rows, first), rows, first)

    def _dialogues(self, column: str, rows: list[Row], first: int) -> list[Row]:
        check_template(self._tokenizer)
        made = dialogue_ids(self._tokenizer, rows, column, first)
        return self._of_ids([(ids, 0) for ids in made], rows, first)

    def _images(self, column: str, rows: list[Row], first: int) -> list[Row]:
        mode = "L" if self.model.channels == 1 else "RGB"
        images = as_images((row[column] for row in rows), column, first, self.image_top, mode)
        processor = self._image_processor()
        try:
            pixels = processor(images, return_tensors="pt")["pixel_values"]
        except (ValueError, TypeError, RuntimeError) as error:
            raise DatasetError(
                f"{type(processor).__name__} refuses the images (given to it as {mode}): {error}",
                where=f"column {column!r}",
                fix="Check the checkpoint's preprocessor_config.json (its size, image_mean and image_std).",
            ) from error
        return self._with_labels([{"pixel_values": image} for image in pixels], rows, first)

    def _features(self, *texts: list[str]) -> list[Row]:
        tokens = self._tokenizer(*texts, truncation=True, max_length=self.max_length)
        return [dict(zip(tokens.keys(), values, strict=True)) for values in zip(*tokens.values(), strict=True)]

    def _of_ids(self, made: list[tuple[list[int], int]], rows: list[Row], first: int) -> list[Row]:
        """Features of token ids, of which a language model learns all but the first so many."""
        features = [as_own_labels(ids, self.max_length, masked) for ids, masked in made]
        if self.causal_lm:
            return features
        for feature in features:
            del feature["labels"]
        return self._with_labels(features, rows, first)

    # ------------------------------------------------------------------- labels
    def _label_column(self, rows: list[Row]) -> str | None:
        """The column that the loss is to see; a class is none for a causal language model."""
        columns = [name for name in LABEL_COLUMNS if name in rows[0]]
        if self.causal_lm and not self._gives_all:
            columns = [
                name for name in columns if is_list(next((row[name] for row in rows if row[name] is not None), None))
            ]
        return columns[0] if columns else None

    def _with_labels(self, features: list[Row], rows: list[Row], first: int) -> list[Row]:
        return self._set_labels(features, rows, self._label_column(rows), first, "labels")

    def _set_labels(
        self, features: list[Row], rows: list[Row], column: str | None, first: int, name: str | None = None
    ) -> list[Row]:
        """The features with the labels of a column, if there is one, as the model's loss takes them."""
        if column is not None:
            for feature, label in zip(features, self._labels.cast(rows, column, first), strict=True):
                feature[name or column] = label
        return features
