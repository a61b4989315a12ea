import pytest

from sage_hf.data.groups import Groups
from sage_hf.errors import GroupError


def test_groups_are_the_distinct_values_in_order_with_class_names():
    groups = Groups.from_values("label", [2, 0, 2], ["cat", "dog", "owl"])
    assert groups.codes.tolist() == [1, 0, 1]
    assert groups.names == ["cat", "owl"]
    assert groups.count == 2


def test_booleans_and_strings_group_too():
    assert Groups.from_values("flag", [True, False]).names == ["False", "True"]
    assert Groups.from_values("source", ["web", "book", "web"]).codes.tolist() == [1, 0, 1]


def test_a_column_with_nulls_names_its_rows():
    with pytest.raises(GroupError, match=r"2 nulls, first in rows \[1, 3\].*column 'source'"):
        Groups.from_values("source", ["a", None, "b", None])


@pytest.mark.parametrize("value", [0.5, [1], {"a": 1}])
def test_what_is_no_scalar_class_is_refused(value):
    with pytest.raises(GroupError, match="row 1 holds a"):
        Groups.from_values("column", [1, value])


def test_a_group_that_was_not_there_at_the_fit_is_named():
    groups = Groups.from_values("label", [0, 1])
    assert groups.codes_for([1, 0]).tolist() == [1, 0]
    with pytest.raises(GroupError, match=r"\['7'\] were not in the dataset"):
        groups.codes_for([0, 7])
