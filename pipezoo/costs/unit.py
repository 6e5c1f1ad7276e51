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
    p2p: float = 0.0,
    freed_by_input_grad: float = 0.0,
) -> Cost:
    """Equal stages: what a *rank* does for a microbatch takes ``F``, ``I`` and ``W``, a stage its share of that.

    Memory comes out in rank-microbatches: what a rank keeps for one microbatch is 1, of which I frees
    ``freed_by_input_grad`` (0..1). A message between two ranks takes ``p2p``, in the same unit of time.
    """
    check_int("num_stages", num_stages, 1)
    check_int("stages_per_rank", stages_per_rank, 1)
    times = {"F": F, "I": I, "W": W, "freed_by_input_grad": freed_by_input_grad}
    entry = {key: check_number(key, value) / stages_per_rank for key, value in times.items()}
    data = {"stages": entry | {"activation_bytes": 1.0 / stages_per_rank}, "p2p": {"latency": check_number("p2p", p2p)}}
    return Cost.from_dict(data | {"unit": "unit"}, num_stages)
