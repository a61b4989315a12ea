"""Columns of every type that `datasets` has, with nulls and odd values: five values each."""

import datetime
import decimal
import io
import json
from importlib.util import find_spec

import numpy as np
import pyarrow as pa
from datasets import (
    Array2D,
    Array3D,
    Array4D,
    Array5D,
    Audio,
    ClassLabel,
    Dataset,
    Features,
    Image,
    LargeList,
    List,
    Sequence,
    Translation,
    TranslationVariableLanguages,
    Value,
)
from hypothesis import strategies as st
from PIL import Image as Picture

ROWS = 8
TEXTS = [
    *(
        "plain",
        "",
        " ",
        None,
        "x" * 300,
        "\U0001f642\U0001f469\u200d\U0001f469\u200d\U0001f467",
        "\u0645\u0631\u062d\u0628\u0627 \u202eabc",
    ),
    *(
        "a\x00b\x1b[31m\x07",
        "line\nbreak\r\ttab",
        "\"quotes\", and, 'commas'",
        "=1+1",
        "<script>alert(1)</script>",
        "NA",
        "e\u0301",
    ),
    *("{{ 7 * 7 }}", "[red]x[/red]", "| cell |", "`", "\u2028\u2029\x85", "\ufeff", "null", "../../etc/passwd"),
]
# Column names that are in somebody's way.
NAMES = [
    *(
        "a",
        "",
        " ",
        "a.b",
        "a[0]",
        "a\nb",
        "__proto__",
        "constructor",
        "x" * 300,
        "\U0001f642",
        "\u0645\u0631",
        "a|b",
        "<b>",
        "=1+1",
    ),
    *(
        "\x1b[31m",
        "sage_score",
        "sage_loss",
        "sage_group",
        "self",
        "None",
        "true",
        "0",
        "a/b",
        "`",
        "[red]",
        "A",
        "%s",
        "{}",
    ),
]


def cycled(values):
    """So many values, a null among them."""
    made = [values[place % len(values)] for place in range(ROWS)]
    made[ROWS // 2] = None
    return made


def pictures():
    """Images of every mode of Pillow that a file holds, as bytes."""
    made = []
    for mode, kind in (
        ("1", "png"),
        ("L", "png"),
        ("LA", "png"),
        ("P", "png"),
        ("RGBA", "png"),
        ("CMYK", "jpeg"),
        ("I;16", "png"),
    ):
        file = io.BytesIO()
        Picture.new(mode, (3, 2)).save(file, kind)
        made.append({"bytes": file.getvalue(), "path": None})
    return made


def _values():
    """By dtype of a `Value`, some values."""
    numbers = {f"{sign}int{bits}": [0, 1, 2 ** (bits - 1) - 1] for sign in ("", "u") for bits in (8, 16, 32, 64)}
    floats = {f"float{bits}": [0.5, float("nan"), float("-inf")] for bits in (16, 32, 64)}
    floats["float16"] = [np.float16(each) for each in floats["float16"]]
    day, zone = datetime.datetime(2024, 2, 29, 23, 59, 59), datetime.timezone.utc
    times = {
        f"timestamp[{unit}]": [day, datetime.datetime(1, 1, 1) if unit in "s" else day]
        for unit in ("s", "ms", "us", "ns")
    }
    times |= {
        f"timestamp[{unit}, tz={name}]": [day.replace(tzinfo=zone)]
        for unit in ("s", "us")
        for name in ("UTC", "Asia/Kolkata", "+05:30")
    }
    times |= {"date32": [day.date()], "date64": [day.date()], "time32[s]": [day.time()], "time32[ms]": [day.time()]}
    times |= {"time64[us]": [day.time()], "time64[ns]": [day.time()]}
    times |= {f"duration[{unit}]": [datetime.timedelta(seconds=3)] for unit in ("s", "ms", "us", "ns")}
    texts = dict.fromkeys(("string", "large_string", "string_view"), TEXTS)
    binary = {name: [b"", b"\x00\xff", b"abc"] for name in ("binary", "large_binary")}
    exact = {
        "decimal128(10, 2)": [decimal.Decimal("1.25"), decimal.Decimal("-3.00")],
        "decimal256(40, 3)": [decimal.Decimal("1.250")],
    }
    return numbers | floats | times | texts | binary | exact | {"bool": [True, False], "null": [None]}


def columns():
    """{name: (feature, values)}, as many as this version of datasets and its extras have."""
    made = {}
    for dtype, values in _values().items():
        try:
            made[dtype] = (Value(dtype), cycled(values))
        except ValueError:  # another version's
            continue
    names = ["cat", "<b>dog</b>", "", "a|b", "\u0645"]
    names[2] = "empty"
    made["class"] = (ClassLabel(names=names), [0, 1, 2, 3, 4, -1, 0, None])
    made["all null"] = (Value("string"), [None] * ROWS)
    made["list"] = (List(Value("string")), cycled([["a", None], [], None, TEXTS]))
    made["large list"] = (LargeList(Value("int64")), cycled([[1, None], []]))
    made["fixed list"] = (List(Value("float32"), length=2), [[0.5, 1.5]] * ROWS)
    made["sequence"] = (
        Sequence({"a": Value("int32"), "b": List(Value("string"))}),
        [{"a": [1, 2], "b": [["x"], []]}] * ROWS,
    )
    made["struct"] = (
        {"a": Value("string"), "b": {"c": List(Value("int8"))}},
        cycled([{"a": None, "b": None}, {"a": "x", "b": {"c": [1, None]}}]),
    )
    made["list of structs"] = (
        List({"role": Value("string"), "content": Value("string")}),
        cycled([[{"role": "user", "content": text}] for text in TEXTS]),
    )
    made["deep"] = (List(List(List(Value("int16")))), cycled([[[[1], []], []]]))
    made["nested class"] = (List(ClassLabel(names=["x", "y"])), cycled([[0, 1, None]]))
    for axes, kind in ((2, Array2D), (3, Array3D), (4, Array4D), (5, Array5D)):
        shape = tuple(range(1, axes + 1))
        made[f"array {axes}"] = (
            kind(shape, "float32"),
            [np.arange(np.prod(shape), dtype=np.float32).reshape(shape)] * ROWS,
        )
    made["image"] = (Image(), [*pictures(), None])
    made["image as stored"] = (
        Image(decode=False),
        [*pictures()[:3], None, {"bytes": b"broken", "path": "x.png"}, {"bytes": b"", "path": None}, None, None],
    )
    made["broken image"] = (Image(), [{"bytes": b"broken", "path": None}] * ROWS)
    made["list of images"] = (List(Image(decode=False)), cycled([pictures()[:2], []]))
    made["audio as stored"] = (
        Audio(decode=False),
        cycled([{"bytes": b"RIFF", "path": None}, {"bytes": b"", "path": "a.wav"}]),
    )
    if find_spec("soundfile") or find_spec("torchcodec"):
        made["audio"] = (Audio(), [None] * ROWS)
    made["translation"] = (Translation(["de", "en"]), cycled([{"de": "Hund", "en": "dog"}]))
    made["translations"] = (
        TranslationVariableLanguages(["de", "en"]),
        cycled([{"language": ["de", "en"], "translation": ["Hund", "dog"]}]),
    )
    made |= _newer()
    return made


def _newer():
    """Types that not every version of datasets has."""
    import datasets

    made = {}
    for name in ("Video", "Pdf", "Nifti"):
        kind = getattr(datasets, name, None)
        if kind is not None:
            made[f"{name} as stored"] = (kind(decode=False), cycled([{"bytes": b"%PDF-", "path": None}]))
    if hasattr(datasets, "Json"):
        made["json"] = (datasets.Json(), cycled([{"a": [1, {"b": None}]}, "text", 3, [1, "x"]]))
    return made


def table(**given):
    """A dataset of some columns, by (feature, values)."""
    features = Features({name: feature for name, (feature, _) in given.items()})
    values = {name: values for name, (_, values) in given.items()}
    for name, feature in features.items():
        if isinstance(feature, Audio):  # what datasets encodes by torchcodec, which need not be there
            values[name] = pa.array(values[name], feature.pa_type)
    return Dataset.from_dict(values, features=features)


def stored(rows, name):
    """A column as Arrow stores it, with its views on memory as plain arrays."""
    return rows.select_columns(name).with_format("arrow")[:][name].combine_chunks()


def same(one, other):
    """Whether two Arrow columns hold the same values, NaN equal to itself."""
    return one.type == other.type and repr(one.to_pylist()) == repr(other.to_pylist())


def as_json(value):
    return json.dumps(value, default=str)


# Columns by chance.
KINDS = st.recursive(
    st.sampled_from(
        [
            Value("string"),
            Value("int64"),
            Value("float64"),
            Value("bool"),
            Value("binary"),
            ClassLabel(names=["a", "b"]),
        ]
    ),
    lambda kind: (
        st.builds(List, kind)
        | st.dictionaries(
            st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=6), kind, min_size=1, max_size=3
        )
    ),
    max_leaves=4,
)


def values_of(kind):
    """Values of a feature, nulls among them."""
    if isinstance(kind, dict):
        made = st.fixed_dictionaries({name: values_of(part) for name, part in kind.items()})
    elif isinstance(kind, List):
        made = st.lists(values_of(kind.feature), max_size=3)
    elif isinstance(kind, ClassLabel):
        made = st.sampled_from([0, 1])
    else:
        made = {
            "string": st.sampled_from([each for each in TEXTS if each]) | st.text(max_size=10),
            "int64": st.integers(-(2**63), 2**63 - 1),
            "float64": st.floats(),
            "bool": st.booleans(),
            "binary": st.binary(max_size=5),
        }[kind.dtype]
    return made | st.none()


def lengths(column):
    """Of an Arrow column, how many values."""
    assert isinstance(column, pa.Array)
    return len(column)
