from __future__ import annotations

import math
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipezoo.splitters._partition import group_balanced, group_evenly


def sizes(groups):
    return [len(group) for group in groups]


def heaviest(weights, groups):
    return max(sum(weights[i] for i in group) for group in groups)


def lightest_possible(weights, num_groups):
    """Every partition, tried."""
    ends = range(1, len(weights))
    partitions = ([0, *cuts, len(weights)] for cuts in combinations(ends, num_groups - 1))
    return min(max(sum(weights[a:b]) for a, b in pairwise(bounds)) for bounds in partitions)


@pytest.mark.parametrize(
    ("num_items", "num_groups", "expected"),
    [(7, 3, [3, 2, 2]), (8, 4, [2, 2, 2, 2]), (3, 3, [1, 1, 1]), (5, 1, [5]), (6, 4, [2, 2, 1, 1])],
)
def test_even_groups_differ_by_at_most_one_item_and_the_larger_come_first(num_items, num_groups, expected):
    groups = group_evenly(num_items, num_groups)
    assert sizes(groups) == expected
    assert [i for group in groups for i in group] == list(range(num_items))


@pytest.mark.parametrize(
    ("weights", "num_groups", "expected"),
    [
        ([9, 1, 1, 1, 4, 4], 3, [[0], [1, 2], [3, 4, 5]]),
        ([1, 1, 1, 1], 2, [[0, 1], [2, 3]]),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9], 3, [[0, 1, 2, 3, 4], [5, 6], [7, 8]]),
        ([5], 1, [[0]]),
        ([0, 0, 0], 3, [[0], [1], [2]]),
    ],
)
def test_balanced_groups_of_known_weights(weights, num_groups, expected):
    assert [list(group) for group in group_balanced(weights, num_groups)] == expected


@given(st.data())
def test_no_partition_is_lighter_than_the_balanced_one(data):
    weights = data.draw(st.lists(st.integers(0, 20), min_size=1, max_size=9))
    num_groups = data.draw(st.integers(1, len(weights)))
    groups = group_balanced(weights, num_groups)
    assert len(groups) == num_groups
    assert all(sizes(groups))
    assert [i for group in groups for i in group] == list(range(len(weights)))
    assert heaviest(weights, groups) == lightest_possible(weights, num_groups)


def test_ten_thousand_items_are_balanced_within_the_largest_item_of_the_mean():
    weights = [1 + i % 7 for i in range(10_000)]
    assert heaviest(weights, group_balanced(weights, 64)) <= sum(weights) / 64 + 7


@pytest.mark.parametrize("group", [group_evenly, lambda n, k: group_balanced([1] * n, k)])
@pytest.mark.parametrize(("num_items", "num_groups"), [(3, 4), (3, 0), (0, 1)])
def test_more_groups_than_items_are_refused(group, num_items, num_groups):
    with pytest.raises(ValueError, match=f"num_groups={num_groups}: {num_items} items make 1..{num_items} groups"):
        group(num_items, num_groups)


@pytest.mark.parametrize("weight", [-1, math.nan, math.inf])
def test_a_weight_that_is_no_weight_is_named(weight):
    with pytest.raises(ValueError, match=r"weights\[1\]=.*must be finite and >= 0"):
        group_balanced([1, weight, 2], 2)
