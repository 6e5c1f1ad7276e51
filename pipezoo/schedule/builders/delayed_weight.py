"""One forward, one backward in two halves, after a warm-up of forwards; some weight gradients are put off to the end.

    warmup=2, late=1, of 5     F F  |  I F  |  I W F   I W F  |  I W   I W  |  W
                               2 F     late    as long as        the rest      late
                                       without there are         of the        W that were
                                       a W     forwards          backwards     put off

A rank that puts weight gradients off sends its gradients sooner, and keeps as many more activations: what ZB-H1, ZB-H2
and interleaved zero bubble have in common. They differ in how many of both a rank has.
"""

from __future__ import annotations

from pipezoo.schedule.builders.phases import Steps, unroll


def delay_weight_grads(total: int, warmup: int, late: int, forward_first: bool = False) -> Steps:
    """The order of one rank with ``total`` forwards; ``warmup`` and ``late`` count no more than there are.

    Args:
        forward_first: whether a turn is F I (W), as in Megatron's interleaved order, and not I (W) F.
    """
    warmup, late = min(warmup, total), min(late, total)
    more = total - warmup  # forwards after the warm-up, one in every turn
    turn, whole_turn = ("F I", "F I W") if forward_first else ("I F", "I W F")
    return unroll(
        (warmup, "F"),
        (min(late, more), turn),
        (max(late - more, 0), "I"),
        (max(more - late, 0), whole_turn),
        (total - max(late, more), "I W"),
        (late, "W"),
    )
