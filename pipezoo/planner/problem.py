"""What an order is asked to do: stages on ranks, their costs in plain lists, and how much each rank may hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pipezoo.errors import MISSING, ArgumentError
from pipezoo.schedule.action import Op
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.bounds import lower_bound
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.skip_messages import SkipMessage

Orders = list[list[int]]  # per rank: item numbers, see Problem

ROUNDING = 1e-9  # of the memory limit, so that sums of the same numbers in another order still fit


@dataclass(frozen=True, eq=False)
class Problem:
    """One search.

    An *item* is one number: with S stages and m microbatches, F of stage s on microbatch k is ``s m + k``, its I
    ``(S + s) m + k`` and its W ``(2S + s) m + k``.

    Args:
        cost: of all stages; I and W must be known.
        stage_to_rank: where each stage is.
        num_microbatches: how many there are.
        limit: the most that each rank may hold, in the unit of the costs; infinity for no limit.

    Attributes:
        after: ``[num_ranks]`` what a rank does after its last item: its optimizer step.
        bound, span_bound: what no order beats; ``bound`` knows the memory limit, see :func:`waits_for_memory`.
        source: ``[2 S m]`` the item whose result each F and I needs, -1 for none.
        took: ``[3 S]`` how long F, I and W of each stage keep their rank, messages of ``overlap=False`` included.
        lag: ``[2 S]`` how long after its source's end the input of F and I is there.
        skips_into: ``[2 S]`` what F and I of each stage wait for beside their source, from stages that are no
            neighbours: how far in items each such item is, and how long after its end its message is there. It always
            ends before the source does, so nobody waits for it alone. Empty where there are none.
        skips_out_of: the same seen from the item that sends.
        grows, frees: ``[3 S]`` what an item adds to its rank's memory at its start, and takes away at its end.
    """

    cost: Cost
    stage_to_rank: tuple[int, ...]
    num_microbatches: int
    limit: tuple[float, ...]
    num_ranks: int = field(init=False)
    stages_of: tuple[tuple[int, ...], ...] = field(init=False)
    after: list[float] = field(init=False)
    source: list[int] = field(init=False)
    took: list[float] = field(init=False)
    lag: list[float] = field(init=False)
    skips_into: list[list[tuple[int, float]]] = field(init=False)
    skips_out_of: list[list[tuple[int, float]]] = field(init=False)
    grows: list[float] = field(init=False)
    frees: list[float] = field(init=False)
    bound: float = field(init=False)
    span_bound: float = field(init=False)

    def __post_init__(self) -> None:
        cost, place = self.cost, self.stage_to_rank
        if np.isnan(cost.seconds[:, Op.W]).any():
            stage = int(np.flatnonzero(np.isnan(cost.seconds[:, Op.W]))[0])
            why = "is missing; a planned order splits the backward: I and W must be known"
            raise ArgumentError(f"stages[{stage}].W", MISSING, why)
        num_ranks = max(place) + 1
        stages_of = tuple(tuple(s for s, rank in enumerate(place) if rank == at) for at in range(num_ranks))
        p2p_seconds = cost.p2p_seconds(place)
        into, out = np.zeros((2, 3, len(place)))
        into[0, 1:] = out[0, :-1] = p2p_seconds
        into[1, :-1] = out[1, 1:] = p2p_seconds
        skips = cost.skip_seconds(place)
        if not cost.overlap:  # a skip keeps its ranks as busy
            for message, seconds in skips:
                for part, sender, receiver in ((0, message.before, message.after), (1, message.after, message.before)):
                    into[part, receiver] += seconds
                    out[part, sender] += seconds
        took = cost.seconds[:, [Op.F, Op.I, Op.W]].T.copy()
        lag = into[:2]
        if not cost.overlap:
            took, lag = took + into + out, -into[:2]
        none = np.zeros(len(place))
        grows = [cost.activation_bytes, none, none]
        frees = [none, cost.freed_by_input_grad, cost.activation_bytes - cost.freed_by_input_grad]
        self._set("num_ranks", num_ranks)
        self._set("stages_of", stages_of)
        self._set("took", took.ravel().tolist())
        self._set("lag", lag.ravel().tolist())
        into_each, out_of_each = _skips(skips if cost.overlap else [], len(place), self.num_microbatches)
        self._set("skips_into", into_each)
        self._set("skips_out_of", out_of_each)
        self._set("grows", np.concatenate(grows).tolist())
        self._set("frees", np.concatenate(frees).tolist())
        self._set("after", np.bincount(place, weights=cost.optimizer, minlength=num_ranks).tolist())
        self._set("source", _sources(len(place), self.num_microbatches).tolist())
        plain = lower_bound(cost, place, self.num_microbatches)
        self._set("bound", max([plain, *map(self.waits_for_memory, range(num_ranks))]))
        self._set("span_bound", self._span_bound())

    def _set(self, key: str, value: object) -> None:
        object.__setattr__(self, key, value)

    @property
    def num_stages(self) -> int:
        return len(self.stage_to_rank)

    def work(self, rank: int) -> float:
        """How long a rank computes, in all."""
        size = self.num_stages
        return self.num_microbatches * sum(
            self.took[part * size + s] for s in self.stages_of[rank] for part in range(3)
        )

    @property
    def plain_bound(self) -> float:
        """The bound that holds for any memory."""
        return lower_bound(self.cost, self.stage_to_rank, self.num_microbatches)

    def first(self, stage: int, part: int) -> float:
        """The earliest start of a stage's first F (part 0) or I (part 1)."""
        size, took, lag = self.num_stages, self.took, self.lag
        if part == 0:
            return sum(took[s] + lag[s + 1] for s in range(stage))
        turn = self.first(size - 1, 0) + took[size - 1]
        return turn + sum(took[size + s] + lag[size + s - 1] for s in range(stage + 1, size))

    def waits_for_memory(self, rank: int) -> float:
        """The makespan of a rank that fills its memory with forwards, and waits for its first gradient to go on.

        rank  . . F F F F . . . . I ...        begin + all of its work + the wait
        """
        stages, limit = self.stages_of[rank], self.limit[rank]
        begin = self.first(stages[0], 0)
        gradient = self.first(stages[-1], 1)
        least = min(self.grows[s] for s in stages)
        most = self.num_microbatches * len(stages)
        if least > 0:
            most = int(min(most, limit * (1 + ROUNDING) / least))
        wait = gradient - begin - most * max(self.took[s] for s in stages)
        return begin + self.work(rank) + max(0.0, wait)

    def _span_bound(self) -> float:
        """No order has a shorter longest span: its work; and on the first rank, the way of the last gradient to it."""
        size, m, took, lag = self.num_stages, self.num_microbatches, self.took, self.lag
        bound = max(self.work(rank) for rank in range(self.num_ranks))
        for stages in self.stages_of:
            own = m * sum(took[s] + took[size + s] for s in stages)
            tail = sum(took[size + s] + lag[size + s] for s in range(stages[0])) + took[2 * size]
            bound = max(bound, self.first(stages[0], 0) + own + tail)
        return bound

    def schedule(self, orders: Orders, name: str) -> Schedule:
        """The items as a proved schedule."""
        items = np.concatenate([np.array(order, dtype=np.int64) for order in orders])
        part, rest = np.divmod(items, self.num_stages * self.num_microbatches)
        stage, microbatch = np.divmod(rest, self.num_microbatches)
        op = np.array([Op.F, Op.I, Op.W], dtype=np.int8)[part]
        offsets = np.cumsum([0] + [len(order) for order in orders])
        return Schedule(op, stage, microbatch, offsets, None, name)  # type: ignore[arg-type]


def _sources(num_stages: int, num_microbatches: int) -> NDArray[np.int64]:
    """F needs the F of the stage below, I the I of the stage above, and the last I its own F."""
    m, half = num_microbatches, num_stages * num_microbatches
    item = np.arange(2 * half)
    source = np.where(item < half, item - m, item + m)
    source[:m] = -1
    source[2 * half - m :] = item[half - m : half]
    return source


def _skips(
    skips: list[tuple[SkipMessage, float]], size: int, m: int
) -> tuple[list[list[tuple[int, float]]], list[list[tuple[int, float]]]]:
    """``skips_into`` and ``skips_out_of`` of a problem with ``size`` stages and ``m`` microbatches."""
    if not skips:
        return [], []
    into: list[list[tuple[int, float]]] = [[] for _ in range(2 * size)]
    out_of: list[list[tuple[int, float]]] = [[] for _ in range(2 * size)]
    for message, seconds in skips:
        for sender, receiver in (
            (message.before, message.after),
            (size + message.after, size + message.before),
        ):
            into[receiver].append(((sender - receiver) * m, seconds))
            out_of[sender].append(((receiver - sender) * m, seconds))
    return into, out_of


def complete_items_of(schedule: Schedule) -> Orders:
    """All items of a schedule, in its order, W included; it must split every backward."""
    schedule = schedule.compute_only()
    part = np.array([0, -1, 1, 2])[schedule.op]
    items = (part * schedule.num_stages + schedule.stage) * schedule.num_microbatches + schedule.microbatch
    return [items[low:high].tolist() for low, high in pairwise(schedule.offsets.tolist())]


def items_of(schedule: Schedule) -> Orders:
    """The F and the input gradients of a schedule as items, in order; a full backward counts as its input gradient."""
    schedule = schedule.compute_only()
    keep = schedule.op != Op.W
    part = np.where(schedule.op == Op.F, 0, 1)
    items = (part * schedule.num_stages + schedule.stage) * schedule.num_microbatches + schedule.microbatch
    return [items[low:high][keep[low:high]].tolist() for low, high in pairwise(schedule.offsets.tolist())]
