"""Why rows do not make a batch: which of them holds a null, or has another shape than the others."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ...errors import DatasetError
from .rows import Offence, Row, Unfit, is_list

_NOT_A_BATCH = "The rows do not make a batch: one"


def misfits(features: list[Row], *, is_padded: bool) -> Offence | None:
    """The rows of a batch, by their places in it, that cannot be made tensors; None where none stands out.

    Looked for after a batch has failed, because it takes as long as making one.

    Args:
        features: Encoded rows.
        is_padded: Whether shorter rows were filled up; else all are to have one shape.
    """
    for name in features[0]:
        shapes: dict[int, tuple[int, ...]] = {}
        unfit: dict[int, Unfit] = {}
        for place, feature in enumerate(features):
            try:
                shapes[place] = _shape(feature.get(name))
            except Unfit as error:
                unfit[place] = error
        if not unfit and not is_padded:
            unfit = _of_other_shape(shapes)
        if unfit:
            return Offence(DatasetError, next(iter(unfit.values())), name, list(unfit))
    return None


def _of_other_shape(shapes: dict[int, tuple[int, ...]]) -> dict[int, Unfit]:
    usual = Counter(shapes.values()).most_common(1)[0][0]
    return {
        place: Unfit(
            f"{_NOT_A_BATCH} holds {_words(shape)}, others {_words(usual)}",
            "Give every row as many values, pad tokens (processing_class=tokenizer), or pass a data_collator.",
        )
        for place, shape in shapes.items()
        if shape != usual
    }


def _shape(value: Any) -> tuple[int, ...]:
    """Lengths of a value's lists, the outermost first.

    Raises:
        Unfit: It holds a null, or lists of unequal length.
    """
    if value is None:
        raise Unfit(f"{_NOT_A_BATCH} holds a null", "Filter or fill such rows.")
    if not is_list(value):
        return ()
    if hasattr(value, "shape"):
        return tuple(value.shape)
    inner = {_shape(each) for each in value}
    if len(inner) > 1:
        some = " and ".join(_words(shape) for shape in sorted(inner)[:2])
        raise Unfit(f"{_NOT_A_BATCH} holds lists of {some} in one", "Make the lists in a row equally long.")
    return (len(value), *(inner.pop() if inner else ()))


def _words(shape: tuple[int, ...]) -> str:
    if not shape:
        return "a single value"
    return "1 value" if shape == (1,) else f"{' x '.join(map(str, shape))} values"
