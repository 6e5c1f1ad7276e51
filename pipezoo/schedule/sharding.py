"""Sharded parameters: gathered before a stage computes with them, and freed when it has.

0UNSHARD 0F0 0B0 0RESHARD 0UNSHARD 0F1 0B1        legal: the last RESHARD may be left out
0F0 0UNSHARD 0B0      0UNSHARD 0UNSHARD 0F0       refused: computes without, gathers twice
0RESHARD 0F0          0UNSHARD 0F0 0B0 0UNSHARD   refused: frees what is not there, gathers for nothing
"""

from __future__ import annotations

import numpy as np

from pipezoo.schedule.action import Op
from pipezoo.schedule.table import Table, first


def check_sharding(table: Table) -> None:
    """Each stage that is gathered or freed at all computes between the two, and neither happens for nothing.

    Raises:
        ScheduleError: names the first action that is in an impossible place.
    """
    gathers, frees = table.op == Op.UNSHARD, table.op == Op.RESHARD
    if not (gathers | frees).any():
        return
    sharded = np.zeros(int(table.stage.max()) + 1, dtype=bool)
    sharded[table.stage[gathers | frees]] = True
    at = np.flatnonzero(sharded[table.stage] & ((table.op <= Op.W) | gathers | frees))
    at = at[np.argsort(table.stage[at], kind="stable")]  # by stage, each in its order
    stage, kind = table.stage[at], np.where(gathers[at], 1, np.where(frees[at], -1, 0))
    here = np.arange(len(at))
    begins = np.r_[True, stage[1:] != stage[:-1]]
    ends = np.r_[begins[1:], True]
    last = np.r_[-1, np.maximum.accumulate(np.where(kind != 0, here, -1))[:-1]]  # the one before that gathers or frees
    is_there = (last >= np.maximum.accumulate(np.where(begins, here, 0))) & (kind[last] == 1)
    for wrong, why in (
        ((kind == 0) & ~is_there, "computes with parameters that are not gathered; {}UNSHARD first"),
        ((kind == 1) & is_there, "gathers what is gathered already"),
        ((kind == -1) & ~is_there, "frees what is not gathered; {}UNSHARD first"),
        (
            (kind == -1) & (last == here - 1),
            "frees what was gathered for nothing: its stage computes nothing in between",
        ),
        ((kind == 1) & ends, "gathers for nothing: its stage computes nothing after it"),
    ):
        if found := first(wrong):
            raise table.fault(at[found[0]], why.format(stage[found[0]]))
