"""Label issues as Argilla records: against a module that takes what Argilla 2 takes, which is too heavy for a test."""

import sys
from dataclasses import dataclass, field
from types import ModuleType

import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Pictures

from sage_hf.errors import ConfigError

from .issue_cases import issues_of


@dataclass
class Suggestion:
    question_name: str
    value: object
    score: float | None = None
    agent: str | None = None
    type: str | None = None


@dataclass
class Record:
    id: str | None = None
    fields: dict | None = None
    metadata: dict | None = None
    vectors: dict | None = None
    responses: list | None = None
    suggestions: list = field(default_factory=list)


@pytest.fixture
def argilla(monkeypatch):
    module = ModuleType("argilla")
    module.Record, module.Suggestion = Record, Suggestion
    monkeypatch.setitem(sys.modules, "argilla", module)


FEATURES = Features({"text": Value("large_string"), "label": ClassLabel(names=["bad", "good"])})


def test_a_record_has_the_text_and_suggests_the_other_label(argilla):
    rows = Dataset.from_dict({"text": ["a", "b 🙂"], "label": [0, 1]}, features=FEATURES)
    issues = issues_of(rows, [1, 0], [1, 0])
    first, second = issues.to_argilla()
    assert first == Record(
        id="1",
        fields={"text": "b 🙂"},
        metadata={"sage_row": 1, "sage_label_doubt": issues.label_doubt[1], "sage_label": "good"},
        suggestions=[Suggestion("label", "bad", issues.label_doubt[1], "sage_hf", "model")],
    )
    assert second.suggestions[0].value == "good"
    assert issues.to_argilla("is it right")[0].suggestions[0].question_name == "is it right"


def test_an_image_is_its_path_or_where_none_leads_to_it_itself(argilla, tmp_path):
    Pictures.new("RGB", (4, 4), (9, 8, 7)).save(tmp_path / "a.png")
    stored = [str(tmp_path / "a.png"), {"bytes": (tmp_path / "a.png").read_bytes(), "path": "a.png"}]
    features = Features({"image": Image(), "label": ClassLabel(names=["x", "y"])})
    rows = Dataset.from_dict({"image": stored, "label": [0, 1]}, features=features)
    first, second = issues_of(rows, [1, 0]).to_argilla()
    assert first.fields == {"image": str(tmp_path / "a.png")}
    assert second.fields["image"].getpixel((0, 0)) == (9, 8, 7)


def test_without_argilla_it_is_told_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "argilla", None)
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features=FEATURES)
    with pytest.raises(ConfigError, match="pip install argilla"):
        issues_of(rows, [1, 0]).to_argilla()
