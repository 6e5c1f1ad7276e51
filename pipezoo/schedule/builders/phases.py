"""Orders as people draw them: phases, each a pattern that one rank repeats.

    unroll((2, "F"), (3, "F B"), (2, "B"))

    F0 F1   F2 B0   F3 B1   F4 B2   B3 B4
    2 x F   3 x F B                 2 x B

``F1`` is a forward of the rank's second stage (its *slot* 1; slot 0 needs no digit), ``(F0 B1)`` are two actions that
may overlap. Microbatches come in turn: a slot's k-th forward and its k-th backward, whole (B) or split (I), are for
microbatch k. A weight gradient follows its input gradient: the k-th ``W1`` belongs to the k-th ``I1``, and the
k-th plain ``W`` to the k-th I of any slot.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipezoo.schedule.action import Op
from pipezoo.schedule.schedule import Columns
from pipezoo.schedule.table import Ints, Mask

_TOKEN = re.compile(r"(\()?([FBIW])([0-9]?)\)?")
_ANY = 10  # the slot of a plain W


class Steps(NamedTuple):
    """The order of one rank; all columns are ``[num_actions]``. ``overlap`` is true on the first of a pair."""

    op: NDArray[np.int8]
    slot: NDArray[np.integer]
    microbatch: Ints
    overlap: Mask | None = None

    def on(self, stages: Sequence[int]) -> Columns:
        """The same as columns of a schedule's table, with ``stages[slot]`` for every slot."""
        return self.op, np.asarray(stages, dtype=np.int32)[self.slot], self.microbatch, self.overlap

    def up_to(self, num_microbatches: int) -> Steps:
        """Without the actions of later microbatches; a pair that loses one of its two is none any more."""
        keep = self.microbatch < num_microbatches
        overlap = None if self.overlap is None else (self.overlap & np.append(keep[1:], False))[keep]
        return Steps(self.op[keep], self.slot[keep], self.microbatch[keep], overlap)


def unroll(*phases: tuple[int, str]) -> Steps:
    """The actions of phases ``(how often, pattern)``, one phase after the other."""
    done: Counter[tuple[Op, int]] = Counter()
    columns = zip(*(_repeat(times, _read(pattern), done) for times, pattern in phases), strict=True)
    op, slot, overlap, microbatch = (np.concatenate(column) for column in columns)
    if (op == Op.W).any():
        _follow_inputs(op, slot, microbatch)
    return Steps(op, slot, microbatch, overlap if overlap.any() else None)


def _repeat(
    times: int, tokens: list[tuple[Op, int, bool]], done: Counter[tuple[Op, int]]
) -> tuple[NDArray[np.int8], NDArray[np.int8], Mask, Ints]:
    """One phase as columns; ``done`` counts the forwards and the backwards that each slot has had."""
    turns = [(Op.B if op == Op.I else op, slot) for op, slot, _ in tokens]
    start = [done[turn] + turns[:i].count(turn) for i, turn in enumerate(turns)]
    each = [turns.count(turn) for turn in turns]
    rounds = np.arange(times, dtype=np.int32)[:, None]
    microbatch = rounds * np.array(each, dtype=np.int32) + np.array(start, dtype=np.int32)
    for turn in turns:
        done[turn] += times
    op, slot, overlap = zip(*tokens, strict=True)
    return (
        np.tile(np.array(op, dtype=np.int8), times),
        np.tile(np.array(slot, dtype=np.int8), times),
        np.tile(np.array(overlap, dtype=bool), times),
        microbatch.ravel(),
    )


def _follow_inputs(op: NDArray[np.int8], slot: NDArray[np.int8], microbatch: Ints) -> None:
    """Give every weight gradient the slot and microbatch of its input gradient, in place."""
    weight = op == Op.W
    for wanted in np.flatnonzero(np.bincount(slot[weight])).tolist():
        weights = np.flatnonzero(weight & (slot == wanted))
        inputs = np.flatnonzero((op == Op.I) & ((slot == wanted) | (wanted == _ANY)))[: len(weights)]
        microbatch[weights] = microbatch[inputs]
        slot[weights] = slot[inputs]


def _read(pattern: str) -> list[tuple[Op, int, bool]]:
    """(op, slot, first of a pair) of every action in the pattern."""
    tokens = []
    for word in pattern.split():
        if not (token := _TOKEN.fullmatch(word)):
            raise ValueError(f"{word!r} in the pattern {pattern!r}: write F, B, I or W with a slot, like F0 or (F0 B1)")
        opens, name, slot = token.groups()
        tokens.append((Op[name], int(slot) if slot else _ANY if name == "W" else 0, bool(opens)))
    return tokens
