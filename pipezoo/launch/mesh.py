"""The grid of a run's processes: ranks of the pipeline (pp), replicas of it (dp), processes that share a stage (tp).

    pp=2 dp=2, order [pp, dp, tp]        process  0       1       2       3
                                         rank     0       0       1       1
                                         replica  0       1       0       1

The first name of an order changes slowest, so the last one is nearest: put inside of a node what talks most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipezoo.errors import ArgumentError
from pipezoo.results.units import count
from pipezoo.validators import check_int, check_word

AXES = ("pp", "dp", "tp")
SHOWN = 4  # replicas whose processes are told
DP_WITH = ("ordered", "replicate", "fsdp")
REFUSED = {  # what torch has besides, and what is silently wrong with it
    "ddp": (
        "the weight half of a split backward runs none of DDP's hooks, so replicas would train alone, and "
        "nobody would say so (pytorch#144530)"
    ),
}


class Place(NamedTuple):
    """Where a process is in the grid.

    Args:
        pp: its rank in the pipeline.
        dp: its replica.
        tp: its part of every stage.
    """

    pp: int
    dp: int = 0
    tp: int = 0


@dataclass(frozen=True)
class Mesh:
    """``mesh=grid``: how many processes stand beside each rank of the pipeline.

    Args:
        dp: replicas of the pipeline.
        tp: processes that share every stage.
        order: ``pp``, ``dp`` and ``tp``, the outermost first.
        dp_with: how gradients of replicas are added: in their order (``ordered``), or by torch: ``replicate``, and
            ``fsdp``, where each replica keeps a shard of each parameter.

    Raises:
        ArgumentError: a value out of range.
    """

    dp: int = 1
    tp: int = 1
    order: tuple[str, ...] = AXES
    dp_with: str = "ordered"

    def __post_init__(self) -> None:
        check_int("dp", self.dp, 1)
        check_int("tp", self.tp, 1)
        if not isinstance(self.order, (list, tuple)) or sorted(map(str, self.order)) != sorted(AXES):
            shown = list(self.order) if isinstance(self.order, tuple) else self.order
            raise ArgumentError("order", shown, "must name each of pp, dp and tp once", "[pp,dp,tp], [dp,pp,tp]")
        object.__setattr__(self, "order", tuple(self.order))
        if self.dp_with in REFUSED:
            raise ArgumentError("dp_with", self.dp_with, REFUSED[self.dp_with], DP_WITH)
        check_word("dp_with", self.dp_with, DP_WITH)

    @property
    def size(self) -> int:
        """Processes for each rank of the pipeline."""
        return self.dp * self.tp

    @property
    def is_plain(self) -> bool:
        """Whether there is one process for each rank."""
        return self.size == 1

    def num_processes(self, pp: int) -> int:
        """Processes in all.

        Args:
            pp: processes of one replica.
        """
        return pp * self.size

    def place(self, process: int, pp: int) -> Place:
        """Where a process is."""
        found = {}
        for name in reversed(self.order):
            process, found[name] = divmod(process, self._length(name, pp))
        return Place(**found)

    def process(self, place: Place, pp: int) -> int:
        """The process at a place."""
        number = 0
        for name in self.order:
            number = number * self._length(name, pp) + getattr(place, name)
        return number

    def shape(self, pp: int) -> tuple[int, ...]:
        """Lengths in the order of :attr:`order`."""
        return tuple(self._length(name, pp) for name in self.order)

    def _length(self, name: str, pp: int) -> int:
        return {"pp": pp, "dp": self.dp, "tp": self.tp}[name]

    def told(self) -> dict[str, Any] | None:
        """For ``result.json``; None for a plain one."""
        if self.is_plain:
            return None
        return {"dp": self.dp, "tp": self.tp, "order": list(self.order), "dp_with": self.dp_with}

    def names(self, ranks: Sequence[str]) -> list[str]:
        """``rank 1, replica 0``: what each process is called in messages.

        Args:
            ranks: what those of one replica are called.
        """
        if self.is_plain:
            return list(ranks)
        places = [self.place(process, len(ranks)) for process in range(self.num_processes(len(ranks)))]
        replica = [f", replica {place.dp}" if self.dp > 1 else "" for place in places]
        part = [f", part {place.tp}" if self.tp > 1 else "" for place in places]
        return [f"{ranks[at.pp]}{which}{piece}" for at, which, piece in zip(places, replica, part, strict=True)]

    def describe(self, pp: int) -> str:
        """``2 ranks x 2 replicas, gradients added with ordered; replica 0 is processes 0 2, replica 1 is 1 3``"""
        sizes = [count(pp, "rank"), *([count(self.dp, "replica")] if self.dp > 1 else [])]
        sizes += [f"{count(self.tp, 'process')} a stage"] if self.tp > 1 else []
        lists = [
            " ".join(str(self.process(Place(rank, dp, tp), pp)) for rank in range(pp) for tp in range(self.tp))
            for dp in range(self.dp)
        ]
        shown = [f"replica {dp} is {'processes ' * (dp == 0)}{text}" for dp, text in enumerate(lists[:SHOWN])]
        more = [f"{self.dp - SHOWN} more"] if self.dp > SHOWN else []
        return f"{' x '.join(sizes)}, dp_with={self.dp_with}; {', '.join([*shown, *more])}"
