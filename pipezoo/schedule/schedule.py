"""A schedule is data: for each rank, the order of its actions. Nothing illegal can be built.

    Schedule.from_orders([["0F0", "0F1", "0B0", "0B1"],      rank 0
                          ["1F0", "1B0", "1F1", "1B1"]])     rank 1

The table is kept as int arrays over all ranks, one after the other, so that it holds millions of actions as easily as
ten; ``order[rank]`` shows a slice of it as a list of :class:`Action`. Construction proves the order
(``schedule/validation.py``): every stage forwards and backwards each microbatch once and whole, in an order that ends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipezoo.errors import ScheduleError
from pipezoo.schedule import csv_io
from pipezoo.schedule.action import COMPUTE, MESSAGES, OF_A_STAGE, Action, Op
from pipezoo.schedule.display import drawn
from pipezoo.schedule.validation import Facts, prove

# one rank's op, stage, microbatch and overlap; see Schedule
Columns = tuple[NDArray[np.int8], NDArray[np.int32], NDArray[np.int32], "NDArray[np.bool_] | None"]

_OPS = tuple(Op)


@dataclass(frozen=True, eq=False, repr=False)
class Schedule:
    """The actions of all ranks, rank after rank. The arrays are kept, not copied, and become read-only.

    Args:
        op: ``[num_actions]`` codes of :class:`~pipezoo.schedule.action.Op`.
        stage: ``[num_actions]`` stage of each action.
        microbatch: ``[num_actions]``; -1 for actions that name none.
        offsets: ``[num_ranks + 1]``; rank ``r`` owns ``offsets[r] : offsets[r + 1]``.
        overlap: ``[num_actions]``; true on the first of two neighbours that are one ``OVERLAP_F_B``. None: no pair.
        name: what the pictures and tables call it.

    Raises:
        ScheduleError: names the rank, the action and what is wrong with it or what it waits for.
    """

    op: NDArray[np.int8]
    stage: NDArray[np.int32]
    microbatch: NDArray[np.int32]
    offsets: NDArray[np.int64]
    overlap: NDArray[np.bool_] | None = None
    name: str = "schedule"
    facts: Facts = field(init=False)

    def __post_init__(self) -> None:
        for key, kind in (("op", np.int8), ("stage", np.int32), ("microbatch", np.int32), ("offsets", np.int64)):
            object.__setattr__(self, key, _frozen(key, getattr(self, key), kind))
        if self.overlap is not None:
            object.__setattr__(self, "overlap", _frozen("overlap", self.overlap, np.bool_))
        object.__setattr__(self, "facts", prove(self.op, self.stage, self.microbatch, self.offsets, self.overlap))

    @property
    def num_ranks(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_stages(self) -> int:
        return len(self.facts.stage_to_rank)

    @property
    def num_microbatches(self) -> int:
        return self.facts.num_microbatches

    @property
    def num_actions(self) -> int:
        return len(self.op)

    @property
    def stage_to_rank(self) -> tuple[int, ...]:
        """The rank that runs each stage."""
        return self.facts.stage_to_rank

    @property
    def source(self) -> NDArray[np.int32]:
        """``[num_actions]``: the index of the action whose result each action waits for, -1 for none."""
        return self.facts.source

    @property
    def rank(self) -> NDArray[np.int32]:
        """``[num_actions]``: the rank of each action."""
        return self.facts.rank

    @property
    def order(self) -> Orders:
        """``order[rank]`` is that rank's list of actions."""
        return Orders(self)

    @property
    def has_messages(self) -> bool:
        """True where sends and receives are written out in the table."""
        return bool(np.isin(self.op, MESSAGES).any())

    @property
    def splits_backward(self) -> bool:
        """True where some backward is done as an input gradient and a weight gradient."""
        return bool((self.op == Op.W).any())

    def stages_of(self, rank: int) -> tuple[int, ...]:
        return tuple(stage for stage, owner in enumerate(self.stage_to_rank) if owner == rank)

    def microbatches_in_order(self, stage: int, *ops: Op) -> list[int]:
        """The microbatches of ``stage`` in the order in which its rank runs any of ``ops`` on them."""
        rank = self.stage_to_rank[stage]
        part = slice(self.offsets[rank], self.offsets[rank + 1])
        chosen = (self.stage[part] == stage) & np.isin(self.op[part], ops)
        return [int(microbatch) for microbatch in self.microbatch[part][chosen]]

    def compute_only(self) -> Schedule:
        """The same order without messages and other actions that compute nothing."""
        keep = np.isin(self.op, COMPUTE)
        if keep.all():
            return self
        offsets = np.concatenate([[0], np.cumsum(keep)])[self.offsets]
        overlap = None if self.overlap is None else self.overlap[keep]
        return Schedule(self.op[keep], self.stage[keep], self.microbatch[keep], offsets, overlap, self.name)

    def digest(self) -> str:
        """A hash of the table: equal for equal orders, whatever their names."""
        pairs = np.flatnonzero(self.overlap) if self.overlap is not None else np.empty(0, np.int64)
        arrays = (self.op, self.stage, self.microbatch, self.offsets, pairs)
        return hashlib.sha256(b"".join(array.tobytes() + b"|" for array in arrays)).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and self.digest() == other.digest()

    def __hash__(self) -> int:
        return hash(self.digest())

    def __repr__(self) -> str:
        counts = ((self.num_ranks, "rank"), (self.num_stages, "stage"), (self.num_microbatches, "microbatch"))
        words = [
            f"{number} {noun}{'' if number == 1 else 'es' if noun.endswith('ch') else 's'}" for number, noun in counts
        ]
        return f"Schedule({self.name!r}, {', '.join(words)})"

    def _repr_svg_(self) -> str:
        """The order as a notebook shows it: at equal costs of F, I and W."""
        return drawn("order_svg", self)

    @classmethod
    def from_columns(cls, ranks: Iterable[Columns], name: str = "schedule") -> Schedule:
        """Build from the arrays ``(op, stage, microbatch, overlap)`` of every rank."""
        parts = list(ranks)
        offsets = np.cumsum([0] + [len(part[0]) for part in parts])
        op = np.concatenate([part[0] for part in parts])
        stage = np.concatenate([part[1] for part in parts])
        microbatch = np.concatenate([part[2] for part in parts])
        overlap = None
        if any(part[3] is not None for part in parts):
            overlap = np.concatenate([np.zeros(len(ops), bool) if pair is None else pair for ops, _, _, pair in parts])
        return cls(op, stage, microbatch, offsets, overlap, name)

    @classmethod
    def from_orders(cls, orders: Iterable[Iterable[Action | str | None]], name: str = "schedule") -> Schedule:
        """Build from a list of actions (or their spellings) per rank; None and "" are idle and left out."""
        rows: list[tuple[int, int, int]] = []
        offsets, pairs = [0], []
        for order in orders:
            for item in order:
                if not item:
                    continue
                action = Action.parse(item) if isinstance(item, str) else item
                if action.parts:
                    pairs.append(len(rows))
                for part in action.parts or (action,):
                    rows.append((part.op, part.stage, -1 if part.microbatch is None else part.microbatch))
            offsets.append(len(rows))
        table = np.array(rows, dtype=np.int64).reshape(-1, 3)
        overlap = np.zeros(len(rows), dtype=bool) if pairs else None
        if overlap is not None:
            overlap[pairs] = True
        return cls(table[:, 0], table[:, 1], table[:, 2], np.array(offsets), overlap, name)  # type: ignore[arg-type]

    @classmethod
    def from_csv(cls, path: str | Path, name: str | None = None) -> Schedule:
        """Read a file with one row per rank and one action per cell, in either of torch's formats; gzip is unpacked.

        Raises:
            ScheduleError: the file cannot be read, a cell is no action, or the order is illegal; names row and column.
        """
        path = Path(path)
        data = csv_io.read_bytes(path)
        op, stage, microbatch, offsets, overlap = csv_io.parse(path, data)
        try:
            return cls(op, stage, microbatch, offsets, overlap, name or Path(path.name.removesuffix(".gz")).stem)
        except ScheduleError as error:
            raise csv_io.located(path, data, error) from None

    def to_csv(self) -> str:
        """One row per rank, one action per cell; torch reads it, and so does :meth:`from_csv`."""
        return b"".join(self.csv_pieces()).decode("ascii")

    def csv_pieces(self) -> Iterator[bytes]:
        """The text of :meth:`to_csv` in pieces of some megabytes."""
        return csv_io.spell(self.op, self.stage, self.microbatch, self.offsets, self.overlap)


def _frozen(key: str, values: ArrayLike, kind: type[np.generic]) -> NDArray[Any]:
    """``values`` as a read-only array of ``kind``, if none of them changes by that."""
    given = np.asarray(values)
    array = np.ascontiguousarray(given, dtype=kind)
    if given.dtype != kind and (array != given).any():
        raise ScheduleError(f"{key} must be whole numbers that fit in {np.dtype(kind)}")
    array.flags.writeable = False
    return array


class Orders(Sequence[list[Action]]):
    """``schedule.order``: a view of the table as one list of actions per rank."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def __len__(self) -> int:
        return self._schedule.num_ranks

    def __getitem__(self, rank: int) -> list[Action]:  # type: ignore[override]
        if not -len(self) <= rank < len(self):
            raise IndexError(f"rank {rank}; there are {len(self)}")
        return list(self._actions(rank % len(self)))

    def _actions(self, rank: int) -> Iterator[Action]:
        schedule = self._schedule
        part = slice(schedule.offsets[rank], schedule.offsets[rank + 1])
        ops = map(_OPS.__getitem__, schedule.op[part].tolist())
        microbatches: list[int | None] = schedule.microbatch[part].tolist()
        if schedule.op[part].max() in OF_A_STAGE:
            microbatches = [None if microbatch == -1 else microbatch for microbatch in microbatches]
        actions = map(Action, schedule.stage[part].tolist(), ops, microbatches)
        if schedule.overlap is None:
            yield from actions
            return
        for paired in (flags := iter(schedule.overlap[part].tolist())):
            if paired:
                next(flags)
                yield Action(-1, Op.OVERLAP_F_B, None, (next(actions), next(actions)))
            else:
                yield next(actions)
