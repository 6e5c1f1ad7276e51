"""What a pipeline costs: seconds by stage and op, bytes kept and sent, and what a p2p message between two ranks takes.

As a plain dict (a YAML file written by hand, or a part of ``result.json``) it reads

    stages:                        one entry a stage; a single entry (no list) stands for every stage
      - F: 0.0185                  seconds of one microbatch's forward
        I: 0.0181                  ... of the input gradient of its backward
        W: 0.0093                  ... of the weight gradient
        B: 0.0274                  ... of the full backward; left out: I + W
        activation_bytes: 3.1e8               bytes that F keeps for the backward
        freed_by_input_grad: 1.9e8             bytes of them that I frees; W frees the rest, and B all of them
        output_bytes: 6.3e6               bytes of the output (its gradient, on the way back, has as many)
        optimizer: 0.002           seconds of the optimizer step
        tp_bytes: 2.5e7            bytes that F adds up over the processes of a stage (mesh.tp); as many on the way back
        grad_bytes: 1.6e9          bytes of gradients that are added up over replicas (mesh.dp), once a batch
    p2p: {latency: 2.0e-5, bandwidth: 2.5e10}
    skips: [{from: 0, to: 3, bytes: 2.1e6}]        what goes past other stages; left out: nothing

A stage that was only ever seen with a full backward has no I and W: they are unknown (NaN here), not guessed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipezoo.errors import MISSING, ArgumentError
from pipezoo.schedule.action import COMPUTE, Op
from pipezoo.schedule.display import drawn
from pipezoo.simulator.cost_entries import (
    BYTES_AND_OPTIMIZER,
    STAGE_KEYS,
    Floats,
    negative,
    range_text,
    table_of,
)
from pipezoo.simulator.cost_form import arguments_of, of_run
from pipezoo.simulator.p2p import P2P as P2P
from pipezoo.simulator.p2p import Links
from pipezoo.simulator.skip_messages import SkipMessage, as_dicts
from pipezoo.validators import check_int, check_number

TIME_UNITS = ("s", "unit")


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Cost:
    """The costs of all stages and of the p2p messages between ranks, for one microbatch.

        Cost(F=1, I=1, W=0.5, p2p=0.1)                 the same for every stage of whatever schedule
        Cost(F=[1, 1, 2], B=[2, 2, 4])                 three stages
        Cost([[1, 2, nan, nan], [2, 4, nan, nan]])     two stages, as a table

    Args:
        seconds: ``[num_stages, 4]`` in the order of ``COMPUTE`` (F, B, I, W). NaN: not known; an unknown B becomes
            I + W, and ``derived`` says so.
        F, B, I, W: in place of ``seconds``: a number for every stage, or ``[num_stages]`` of them.
        activation_bytes: ``[num_stages]`` bytes that F keeps until the end of B, or of I and W.
        freed_by_input_grad: ``[num_stages]`` bytes of these that the end of I frees.
        output_bytes: ``[num_stages]`` bytes that a stage's output has, and the gradient that comes back for it.
        optimizer: ``[num_stages]`` seconds of the optimizer step, once a batch.
        tp_bytes: ``[num_stages]`` bytes that F adds up over the processes of a stage, as many in the backward.
            They take time where a topology says how far these processes are apart (:mod:`pipezoo.topology`).
        grad_bytes: ``[num_stages]`` bytes of gradients that are added up over replicas once a batch; the same.
        p2p: what a message between two ranks takes; a number is its latency.
        p2p_intra_node: the same between ranks of one node, where that differs; needs ``ranks_per_node``.
        ranks_per_node: ranks ``0 .. n-1`` share the first node, the next ``n`` the second, and so on.
        overlap: True: messages travel while their ranks compute. False: a message keeps its sender busy right after
            the action that made it, and its receiver right before the action that needs it.
        overlap_gain: share of the shorter half of an ``OVERLAP_F_B`` that is hidden behind the longer one, in 0..1,
            where one of them is a forward and the other is not.
        unit: what ``seconds`` count: ``"s"``, or ``"unit"`` where they are of no machine; then bytes are none either.
        skips: what goes from a stage to one that is not its neighbour.
        links: what messages take by where ranks stand; in place of ``p2p`` and ``p2p_intra_node``.
        for_every_stage: the one stage that is given stands for every stage, as many as a schedule has.

    Raises:
        ValueError: names the entry, like ``stages[2].F=-1.0: must be a number >= 0``.
    """

    seconds: Floats
    activation_bytes: Floats
    freed_by_input_grad: Floats
    output_bytes: Floats
    optimizer: Floats
    tp_bytes: Floats
    grad_bytes: Floats
    p2p: P2P
    p2p_intra_node: P2P | None
    ranks_per_node: int | None
    overlap: bool
    overlap_gain: float
    unit: str
    for_every_stage: bool
    skips: tuple[SkipMessage, ...]
    links: Links | None
    full_backward_is_derived: NDArray[np.bool_] = field(init=False)

    def __init__(
        self,
        seconds: ArrayLike | None = None,
        activation_bytes: ArrayLike = 0.0,
        freed_by_input_grad: ArrayLike = 0.0,
        output_bytes: ArrayLike = 0.0,
        optimizer: ArrayLike = 0.0,
        p2p: P2P | float = 0.0,
        p2p_intra_node: P2P | None = None,
        ranks_per_node: int | None = None,
        overlap: bool = True,
        overlap_gain: float = 0.0,
        unit: str = "s",
        for_every_stage: bool = False,
        skips: Sequence[SkipMessage] = (),
        links: Links | None = None,
        *,
        tp_bytes: ArrayLike = 0.0,
        grad_bytes: ArrayLike = 0.0,
        F: ArrayLike | None = None,
        B: ArrayLike | None = None,
        I: ArrayLike | None = None,
        W: ArrayLike | None = None,
    ) -> None:
        amounts = (activation_bytes, freed_by_input_grad, output_bytes, optimizer, tp_bytes, grad_bytes)
        if seconds is None:
            given = dict(zip(STAGE_KEYS, (F, B, I, W, *amounts), strict=True))
            seconds, for_every_stage = table_of(given)
        elif any(value is not None for value in (F, B, I, W)):
            raise ArgumentError("seconds", MISSING, "is the table of F, B, I and W; give one or the other")
        self._set("seconds", seconds)
        for key, value in zip(BYTES_AND_OPTIMIZER, amounts, strict=True):
            self._set(key, value)
        self._set("p2p", p2p if isinstance(p2p, P2P) else P2P(check_number("p2p", p2p)))
        self._set("p2p_intra_node", p2p_intra_node)
        self._set("ranks_per_node", ranks_per_node)
        self._set("overlap", overlap)
        self._set("overlap_gain", overlap_gain)
        self._set("unit", unit)
        self._set("for_every_stage", for_every_stage)
        self._set("skips", tuple(skips))
        self._set("links", links)
        self._check()

    def _check(self) -> None:
        given = np.array(self.seconds, dtype=np.float64)
        if given.ndim != 2 or given.shape[1] != len(COMPUTE) or not len(given):
            raise ArgumentError(
                "seconds.shape", given.shape, "must be [num_stages, 4], a column for each of F, B, I, W"
            )
        self._set("seconds", given)
        for key in BYTES_AND_OPTIMIZER:
            self._set(key, np.array(np.broadcast_to(getattr(self, key), len(given)), dtype=np.float64))
        self._check_stages()
        whole, halves = given[:, Op.B], given[:, Op.I] + given[:, Op.W]
        derived = np.isnan(whole)
        given[derived, Op.B] = halves[derived]
        self._set("full_backward_is_derived", derived)
        for key in ("seconds", "full_backward_is_derived", *BYTES_AND_OPTIMIZER):
            getattr(self, key).flags.writeable = False
        if not isinstance(self.overlap, bool):
            raise ArgumentError("overlap", self.overlap, "must be true or false")
        self._set("overlap_gain", check_number("overlap_gain", self.overlap_gain))
        if self.overlap_gain > 1:
            raise ArgumentError("overlap_gain", self.overlap_gain, "must be a number in 0..1")
        if self.overlap_gain and not self.overlap:
            raise ArgumentError("overlap_gain", self.overlap_gain, "needs overlap=true")
        if self.unit not in TIME_UNITS:
            raise ArgumentError("unit", self.unit, "is no unit of time", TIME_UNITS)
        if (self.p2p_intra_node is None) != (self.ranks_per_node is None):
            raise ArgumentError(
                "ranks_per_node", self.ranks_per_node, "p2p_intra_node and ranks_per_node come together"
            )
        if self.ranks_per_node is not None:
            check_int("ranks_per_node", self.ranks_per_node, 1)

    def _set(self, key: str, value: object) -> None:
        object.__setattr__(self, key, value)

    def _check_stages(self) -> None:
        values = np.column_stack([self.seconds, *(getattr(self, key) for key in BYTES_AND_OPTIMIZER)])
        optional = np.isnan(values) & np.isin(STAGE_KEYS, ("B", "I", "W"))
        for stage, column in np.argwhere(~optional & ~((values >= 0) & np.isfinite(values))):
            value = float(values[stage, column])
            name = f"stages[{stage}].{STAGE_KEYS[column]}"
            raise ArgumentError(name, MISSING, "is missing") if math.isnan(value) else negative(name, value)
        _, whole, inputs, weight = np.isnan(self.seconds).T
        for stage in np.flatnonzero(inputs != weight):
            why = "I and W are the two halves of a backward and come together"
            raise ArgumentError(f"stages[{stage}]", MISSING, why)
        for stage in np.flatnonzero(whole & inputs):
            raise ArgumentError(f"stages[{stage}].B", MISSING, "is missing; give B, or I and W, or all three")
        for stage in np.flatnonzero(self.freed_by_input_grad > self.activation_bytes):
            frees, kept = float(self.freed_by_input_grad[stage]), float(self.activation_bytes[stage])
            name = f"stages[{stage}].freed_by_input_grad"
            raise ArgumentError(name, int(frees) if frees.is_integer() else frees, f"F keeps only {kept:g} bytes")

    @property
    def num_stages(self) -> int:
        return len(self.seconds)

    @property
    def F(self) -> Floats:
        """``[num_stages]``: seconds of one microbatch's forward."""
        return self.seconds[:, Op.F]

    @property
    def B(self) -> Floats:
        """``[num_stages]``: seconds of its full backward."""
        return self.seconds[:, Op.B]

    @property
    def I(self) -> Floats:  # noqa: E743
        """``[num_stages]``: seconds of its input gradient; NaN where they are not known."""
        return self.seconds[:, Op.I]

    @property
    def W(self) -> Floats:
        """``[num_stages]``: seconds of its weight gradient; NaN where they are not known."""
        return self.seconds[:, Op.W]

    def for_stages(self, num_stages: int) -> Cost:
        """The costs of ``num_stages`` stages where one stands for every stage; else these, whatever their number."""
        if not self.for_every_stage:
            return self
        amounts: dict[str, Any] = {key: np.repeat(getattr(self, key), num_stages) for key in BYTES_AND_OPTIMIZER}
        return replace(
            self, seconds=np.repeat(self.given_seconds(), num_stages, axis=0), **amounts, for_every_stage=False
        )

    def share(self, parts: int) -> Cost:
        """The costs of stages that are a ``parts``-th each: times and activations are, outputs and messages not."""
        amounts: dict[str, Any] = {
            key: getattr(self, key) / parts for key in BYTES_AND_OPTIMIZER if key != "output_bytes"
        }
        return replace(self, seconds=self.given_seconds() / parts, **amounts)

    def given_seconds(self) -> Floats:
        """``seconds`` without what was derived."""
        seconds: Floats = self.seconds.copy()
        seconds[self.full_backward_is_derived, Op.B] = math.nan
        return seconds

    @property
    def derived(self) -> list[str]:
        """What nobody gave, in words: for the start-up lines."""
        stages = np.flatnonzero(self.full_backward_is_derived)
        if not len(stages):
            return []
        which = "every stage" if len(stages) == self.num_stages else f"stage {', '.join(map(str, stages))}"
        return [f"B = I + W on {which}"]

    def p2p_seconds(self, stage_to_rank: Sequence[int]) -> Floats:
        """``[num_stages - 1]``: what a message between stages ``i`` and ``i + 1`` takes; 0 where they share a rank."""
        ranks, output_bytes = np.asarray(stage_to_rank), self.output_bytes[:-1]
        if self.links is not None:
            pairs = zip(ranks.tolist(), ranks[1:].tolist(), output_bytes.tolist(), strict=False)
            return np.array([self.between(*pair) for pair in pairs], dtype=np.float64)
        taken = self.p2p.seconds(output_bytes)
        if self.p2p_intra_node is not None and self.ranks_per_node is not None:
            node = ranks // self.ranks_per_node
            taken = np.where(node[1:] == node[:-1], self.p2p_intra_node.seconds(output_bytes), taken)
        return np.where(ranks[1:] == ranks[:-1], 0.0, taken)

    def between(self, rank: int, other: int, num_bytes: float) -> float:
        """What a message of so many bytes takes from one rank to another; 0 within a rank.

        Raises:
            ArgumentError: a rank that has no place in ``links``.
        """
        if rank == other:
            return 0.0
        if self.links is not None:
            if (most := max(rank, other)) >= self.links.num_ranks:
                why = f"has {self.links.num_ranks} ranks, and there is a rank {most}"
                raise ArgumentError("links.places", MISSING, why)
            return self.links.seconds(rank, other, num_bytes)
        p2p = self.p2p
        if self.p2p_intra_node is not None and self.ranks_per_node is not None:
            p2p = self.p2p_intra_node if rank // self.ranks_per_node == other // self.ranks_per_node else p2p
        return float(p2p.seconds(np.float64(num_bytes)))

    def skip_seconds(self, stage_to_rank: Sequence[int]) -> list[tuple[SkipMessage, float]]:
        """What each skip takes; 0 where its stages share a rank. Raises ValueError for one to a stage there is not."""
        found = []
        for message in self.skips:
            if message.after >= len(stage_to_rank):
                why = f"goes to stage {message.after}; valid: 0..{len(stage_to_rank) - 1}"
                raise ArgumentError("skips", MISSING, why)
            before, after = stage_to_rank[message.before], stage_to_rank[message.after]
            found.append((message, self.between(before, after, message.num_bytes)))
        return found

    def instant(self) -> Cost:
        """The same with messages that take no time."""
        return replace(self, p2p=P2P(), p2p_intra_node=None, ranks_per_node=None, links=None)

    @classmethod
    def from_dict(cls, data: object, num_stages: int | None = None) -> Cost:
        """Read the form shown on top of this file; numbers may be spelled as text, as YAML leaves ``1e-3``.

        Args:
            data: the dict.
            num_stages: how many stages a single entry stands for; given a list, the length that it must have.

        Raises:
            ValueError: one line that names the entry, its value and what would be right.
        """
        return cls(**arguments_of(data, num_stages))

    def to_dict(self) -> dict[str, Any]:
        """What :meth:`from_dict` reads: plain numbers, lists and dicts; what is 0 or derived is left out."""
        seconds, stages = self.given_seconds(), []
        for stage in range(self.num_stages):
            entry = {op.name: float(seconds[stage, op]) for op in COMPUTE if not math.isnan(seconds[stage, op])}
            amounts = {key: float(getattr(self, key)[stage]) for key in BYTES_AND_OPTIMIZER}
            stages.append(entry | {key: amount for key, amount in amounts.items() if amount})
        data: dict[str, Any] = {
            "stages": stages[0] if self.for_every_stage else stages,
            "p2p": self.p2p.to_dict(),
        }
        if self.p2p_intra_node is not None:
            data |= {"p2p_intra_node": self.p2p_intra_node.to_dict(), "ranks_per_node": self.ranks_per_node}
        data |= {"overlap": self.overlap, "overlap_gain": self.overlap_gain}
        data |= {"skips": as_dicts(self.skips)} if self.skips else {}
        data |= {"links": self.links.to_dict()} if self.links is not None else {}
        return data if self.unit == "s" else data | {"unit": self.unit}

    @classmethod
    def from_run(cls, folder: str | Path) -> Cost:
        """What the stages of a former run cost, as it measured them or was told.

        Raises:
            ArgumentError: the folder holds no run, or one that knew no costs.
        """
        return cls.from_dict(of_run(folder))

    def __repr__(self) -> str:
        stages = "every stage" if self.for_every_stage else f"{self.num_stages} stages"
        known = [op for op in COMPUTE if not np.isnan(self.seconds[:, op]).all()]
        times = [f"{op.name} {range_text(self.seconds[:, op])}" for op in known]
        memory = [f"activation_bytes {range_text(self.activation_bytes)}"] if self.activation_bytes.any() else []
        return f"Cost({stages}: {', '.join(times + memory)}; p2p {self.p2p.latency:g} {self.unit})"

    def _repr_html_(self) -> str:
        return drawn("cost_html", self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cost) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(self.seconds.tobytes())
