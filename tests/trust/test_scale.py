"""The counting of these cases."""

from .scale import some


def test_some_values_are_spread_from_the_first_to_the_last():
    assert some([*range(101)], 3) in ([0, 50, 100], [*range(101)])
    assert some([1, 2], 5) == [1, 2]
