"""Order by order the same as torch's classes, for every (p, m, v) that they accept, and refused where they refuse,
but for 1F1B and DualPipeV of few microbatches."""

from __future__ import annotations

import pytest

from pipezoo.schedules.dualpipev import dualpipev
from pipezoo.schedules.gpipe import gpipe
from pipezoo.schedules.interleaved_1f1b import interleaved_1f1b
from pipezoo.schedules.interleaved_zero_bubble import interleaved_zero_bubble
from pipezoo.schedules.looped_bfs import looped_bfs
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.schedules.zbv import zbv
from tests.support.torch_orders import executed, planned

MICROBATCHES = [*range(1, 14), 16, 18, 21, 24, 32]


def orders(schedule):
    return [[str(action) for action in order] for order in schedule.order]


def ours_or_refused(function, *arguments):
    try:
        return orders(function(*arguments))
    except ValueError:
        return "refused"


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (interleaved_1f1b, "Interleaved1F1B"),
        (looped_bfs, "LoopedBFS"),
        (interleaved_zero_bubble, "InterleavedZeroBubble"),
        (zbv, "ZBVZeroBubble"),
        (dualpipev, "DualPipeV"),
    ],
)
def test_the_plan_of_a_multi_stage_class(function, name, num_ranks, monkeypatch):
    accepted = 0
    for num_microbatches in MICROBATCHES:
        for stages_per_rank in (1, 2, 3, 4):
            arguments = (num_ranks, num_microbatches, stages_per_rank)
            try:
                expected = planned(name, *arguments, monkeypatch)
                accepted += 1
            except ValueError:
                if function is dualpipev and num_microbatches < 2 * num_ranks and stages_per_rank == 2:
                    continue  # torch wants a microbatch for each stage; ours runs with fewer
                expected = "refused"
            assert ours_or_refused(function, *arguments) == expected, arguments
    assert accepted >= 5


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize(("function", "name"), [(gpipe, "GPipe"), (one_f_one_b, "1F1B")])
def test_what_a_single_stage_class_executes(function, name, num_ranks, monkeypatch):
    for num_microbatches in MICROBATCHES:
        try:
            expected = executed(name, num_ranks, num_microbatches, monkeypatch)
        except ValueError:
            if function is one_f_one_b and num_microbatches < num_ranks:
                continue  # torch wants a microbatch for each rank; ours runs with fewer
            expected = "refused"
        assert ours_or_refused(function, num_ranks, num_microbatches) == expected, num_microbatches
