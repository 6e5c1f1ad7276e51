"""Grouped interleaved 1F1B: interleaved 1F1B whose ranks stay longer on one stage before they go on to the next.

Narayanan et al., "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM", arXiv:2104.04473;
the size of the groups is Megatron-LM's ``microbatch_group_size_per_vp_stage``

    bubble     (p-1)(TF+TB+TW)/v, as interleaved 1F1B, where m is a multiple of g
    memory     2(p-1) + (v-1)g + 1 activations of one stage on the first rank, of mv at most
    needs      p <= g <= m, and no smaller rest: m mod g is 0 or at least p

    Groups of g > p microbatches leave g - p units of time for a message from the last rank back to the first.

    p=2, v=2, m=6, g=3: stage s is on rank s % p; F and B are of the rank's first stage, f and b of its second; a
    backward takes two units

    rank 0  F0 F1 F2 f0 f1 f2 .  b0--- F3 b1--- F4 b2--- F5 B0--- f3 B1--- f4 B2--- f5 b3--- .  b4--- .  b5--- B3--- ...
    rank 1  .  F0 F1 F2 f0 b0--- f1 b1--- f2 b2--- F3 B0--- F4 B1--- F5 B2--- f3 b3--- f4 b4--- f5 b5--- B3--- ...
"""

from __future__ import annotations

import numpy as np

from pipezoo.errors import ArgumentError
from pipezoo.schedule.action import Op
from pipezoo.schedule.builders.phases import Steps, unroll
from pipezoo.schedule.schedule import Schedule
from pipezoo.validators import check_int


def grouped_interleaved_1f1b(
    num_ranks: int,
    num_microbatches: int,
    stages_per_rank: int | None = 2,
    microbatch_group_size: int | None = None,
) -> Schedule:
    """The grouped interleaved order; stage ``s`` is on rank ``s % num_ranks``. ``stages_per_rank=None`` means 2.

    Args:
        microbatch_group_size: microbatches that a rank runs on one stage in a row; None: ``num_ranks``.

    Raises:
        ValueError: a count below 1, or groups that are too small, too large, or leave too small a rest.
    """
    p = check_int("num_ranks", num_ranks, 1)
    m = check_int("num_microbatches", num_microbatches, 1)
    v = check_int("stages_per_rank", 2 if stages_per_rank is None else stages_per_rank, 1)
    g = _group_size(p, m, microbatch_group_size)

    def order(rank: int) -> Steps:
        warmup = min((v - 1) * g + 2 * (p - 1 - rank), m * v)
        steps = unroll((warmup, "F"), (m * v - warmup, "F B"), (warmup, "B"))
        slot, microbatch = _turns(m, g, v)
        slots = slot[steps.microbatch]
        return steps._replace(
            slot=np.where(steps.op == Op.F, slots, v - 1 - slots), microbatch=microbatch[steps.microbatch]
        )

    orders = (order(rank).on(range(rank, p * v, p)) for rank in range(p))
    return Schedule.from_columns(orders, "grouped_interleaved_1f1b")


def _turns(num_microbatches: int, group: int, num_slots: int) -> tuple[np.ndarray, np.ndarray]:
    """``[num_microbatches * num_slots]`` each: the slot and the microbatch of a rank's k-th forward."""
    microbatch = np.arange(num_microbatches, dtype=np.int32)
    slot = np.arange(num_slots, dtype=np.int32)
    slots, microbatches = (grid.ravel() for grid in np.meshgrid(slot, microbatch, indexing="ij"))
    order = np.lexsort((microbatches, slots, microbatches // group))
    return slots[order], microbatches[order]


def _group_size(num_ranks: int, num_microbatches: int, asked: int | None) -> int:
    most = max(num_ranks, num_microbatches)
    group = num_ranks if asked is None else check_int("microbatch_group_size", asked, num_ranks, most)
    if num_microbatches < group:
        raise ArgumentError("num_microbatches", num_microbatches, f"a group has {group} of them", f">= {group}")
    rest = num_microbatches % group
    if 0 < rest < num_ranks:
        low = num_microbatches - rest
        why = f"groups of {group} leave {rest}, fewer than the {num_ranks} ranks"
        raise ArgumentError("num_microbatches", num_microbatches, why, (low, low + num_ranks))
    return group
