"""DualPipeV: a V of two stages a rank; in the steady phase every forward of one runs beside a backward of the other.

DeepSeek-AI, "DeepSeek-V3 Technical Report", arXiv:2412.19437, and the cut-in-half form of its DualPipe; torch's order

    bubble     (p/2-1)(F&B + TB - 2TW) where a pair overlaps fully, F&B its time and TB a full backward's;
               (p-1)/(6m+p-1) of the makespan at equal costs without overlap
    memory     the activations of p + 1/2 microbatches
    needs      m >= 2p for that; with fewer it is the order of 2p microbatches without those that are not there

    p=3, m=6: rank 0 has the stages 0 and 5, rank 1 has 1 and 4, rank 2 has 2 and 3; F is of the stage on the way down,
    f of the stage on the way up; (F b) may overlap

    rank 0  F0 F1 F2 F3 F4 f0 i0 w0 f1 i1 w1 f2 (F5 b2) (f3 B0) b3 (f4 B1) b4 (f5 B2) b5 I3 W3 I4 W4 I5 W5
    rank 1  F0 F1 F2 f0 F3 f1 i0 w0 f2 (F4 b1) (f3 B0) (F5 b2) (f4 B1) b3 (f5 B2) b4 B3 i5 I4 w5 I5 W4 W5
    rank 2  F0 f0 F1 f1 F2 f2 F3 b0 (f3 B0) (F4 b1) (f4 B1) (F5 b2) (f5 B2) b3 B3 b4 I4 i5 I5 W4 w5 W5
"""

from __future__ import annotations

from pipezoo.schedule.builders.phases import Steps, unroll
from pipezoo.schedule.schedule import Schedule
from pipezoo.validators import check_equal, check_int


def dualpipev(num_ranks: int, num_microbatches: int, stages_per_rank: int = 2) -> Schedule:
    """The DualPipeV order, ``OVERLAP_F_B`` pairs included; rank ``r`` has stages ``r`` and ``2 * num_ranks - 1 - r``.

    Raises:
        ValueError: a count below 1, or other than two stages per rank.
    """
    p = check_int("num_ranks", num_ranks, 1)
    m = check_int("num_microbatches", num_microbatches, 1)
    check_equal("stages_per_rank", stages_per_rank, 2, "dualpipev runs exactly 2 stages on each rank, placed as a V")
    filling = max(m, 2 * p)

    def order(rank: int) -> Steps:
        far = p - 1 - rank  # p2p messages from this rank to the turn of the V
        alone = int(far == 0)  # where the V turns, the first F and B depend on neighbours that are not there yet
        drain, odd = divmod(rank + 1, 2)
        return unroll(
            (2 * far, "F0"),
            (rank + 1, "F0 F1"),
            (far, "I1 W F1"),
            (alone, "F0 B1 (F1 B0)"),
            (filling - 2 * p + rank + 1 - alone, "(F0 B1) (F1 B0)"),
            (far, "B1 (F1 B0)"),
            (drain, "B1 B0"),
            (odd, "B1 I0"),  # from here on weight gradients are kept for the gaps that follow
            (drain, "I1 I0"),
            (far, "W I0"),
            (rank + 1, "W"),
        ).up_to(m)

    return Schedule.from_columns((order(rank).on([rank, 2 * p - 1 - rank]) for rank in range(p)), "dualpipev")
