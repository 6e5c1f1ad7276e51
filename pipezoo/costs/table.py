"""A cost that is written down where it is asked for."""

from __future__ import annotations

from pipezoo.simulator.cost import Cost


def table(
    num_stages: int,
    stages_per_rank: int = 1,
    *,
    stages: object,
    p2p: object = None,
    p2p_intra_node: object = None,
    ranks_per_node: int | None = None,
    overlap: bool = True,
    overlap_gain: float = 0.0,
    skips: object = (),
) -> Cost:
    """A cost written down by hand: the arguments are the keys of :meth:`Cost.from_dict`."""
    data = {"stages": stages, "p2p": p2p, "p2p_intra_node": p2p_intra_node, "ranks_per_node": ranks_per_node}
    return Cost.from_dict(data | {"overlap": overlap, "overlap_gain": overlap_gain, "skips": skips}, num_stages)
