"""Equal stages, to compare orders of actions whatever the model and the machine."""

from __future__ import annotations

from pipezoo.simulator.cost import Cost
from pipezoo.validators import check_int, check_number


def unit(
    num_stages: int,
    stages_per_rank: int = 1,
    *,
    F: float = 1.0,
    I: float = 1.0,
    W: float = 1.0,
    hop: float = 0.0,
    I_frees: float = 0.0,
) -> Cost:
    """Equal stages: what a *rank* does for a microbatch takes ``F``, ``I`` and ``W``, a stage its share of that.

    Memory comes out in rank-microbatches: what a rank keeps for one microbatch is 1, of which ``I_frees`` (0..1) is
    freed by I. A hop takes ``hop``, in the same unit of time.
    """
    check_int("num_stages", num_stages, 1)
    check_int("stages_per_rank", stages_per_rank, 1)
    times = {"F": F, "I": I, "W": W, "I_frees": I_frees}
    entry = {key: check_number(key, value) / stages_per_rank for key, value in times.items()}
    data = {"stages": entry | {"keeps": 1.0 / stages_per_rank}, "hop": {"latency": check_number("hop", hop)}}
    return Cost.from_dict(data, num_stages)
