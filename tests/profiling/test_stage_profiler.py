from __future__ import annotations

from pipezoo.profiling.stage_profiler import both_ways


def test_every_other_backward_is_split_and_microbatches_follow_one_another():
    assert [" ".join(map(str, order)) for order in both_ways(2, 3).order] == [
        "0F0 0B0 0F1 0I1 0W1 0F2 0B2",
        "1F0 1B0 1F1 1I1 1W1 1F2 1B2",
    ]
