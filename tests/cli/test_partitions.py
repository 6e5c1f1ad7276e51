"""What no partition takes is refused before it is submitted."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pipezoo.cli.partitions import Partition, check_partition, minutes_of, partitions
from pipezoo.errors import ArgumentError
from pipezoo.launch import Slurm

KNOWN = [Partition("main", 2, 10.0, is_default=True), Partition("long", 8, math.inf)]


@pytest.mark.parametrize(
    ("limit", "minutes"),
    [
        ("10:00", 10.0),
        ("0:30", 0.5),
        ("2:00:00", 120.0),
        ("1-02:00:00", 1560.0),
        ("7-0", 10080.0),
        ("infinite", math.inf),
        ("n/a", math.inf),
        ("", math.inf),
    ],
)
def test_slurms_times_are_minutes(limit: str, minutes: float) -> None:
    assert minutes_of(limit) == minutes


@pytest.mark.parametrize(
    ("launch", "line"),
    [
        ({"partition": "mian"}, "partition=mian: unknown partition (did you mean main?); valid: long, main"),
        ({"partition": "main,lnog"}, "partition=lnog: unknown partition (did you mean long?); valid: long, main"),
        ({"nodes": 3}, "nodes=3: partition main has 2; valid: 1..2"),
        ({"time": 11}, "time=11: partition main ends a job after 10 minutes; valid: 1..10"),
        ({"partition": "long", "nodes": 9}, "nodes=9: partition long has 8; valid: 1..8"),
    ],
)
def test_what_no_partition_takes_is_refused(launch: dict[str, Any], line: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        check_partition(Slurm(**{"time": 5, **launch}), KNOWN)
    assert str(caught.value) == line


@pytest.mark.parametrize("launch", [{}, {"partition": "long", "time": 600}, {"partition": "main,long", "nodes": 8}])
def test_what_one_of_them_takes_is_submitted(launch: dict[str, Any]) -> None:
    check_partition(Slurm(**{"time": 5, **launch}), KNOWN)


def test_a_cluster_that_says_nothing_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert partitions() == []
    check_partition(Slurm(partition="any", nodes=99), [])
