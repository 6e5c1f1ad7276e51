"""One action of a pipeline: an op on one stage for one microbatch, spelled as torch spells it.

2F0                     stage 2, forward, microbatch 0
2B0                     full backward           = input gradient and weight gradient at once
2I0  2W0                input gradient, weight gradient
2SEND_F0  3RECV_F0      the output of 2F0 leaves its rank, and arrives as the input of 3F0
3SEND_B0  2RECV_B0      the input gradient of stage 3 leaves, and arrives at stage 2
0SEND_F0to3  3RECV_F0from0  a skip: what stage 0 hands to stage 3 leaves, and arrives (what ranks execute, no table)
2REDUCE_GRAD            the gradients of stage 2 are complete; those of its replicas are added up (G)
2UNSHARD  2RESHARD      parameters gathered, and freed again (sharded data parallelism)
(0F4;7B2)OVERLAP_F_B    two actions that may run at the same time
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Any, NamedTuple


class Op(IntEnum):
    """What an action does. The first four compute; their numbers index cost tables."""

    F = 0
    B = 1
    I = 2
    W = 3
    SEND_F = 4
    RECV_F = 5
    SEND_B = 6
    RECV_B = 7
    UNSHARD = 8
    RESHARD = 9
    REDUCE_GRAD = 10
    OVERLAP_F_B = 11

    @property
    def letter(self) -> str:
        """What stands for it where there is room for one letter: F B I W, U R G."""
        return "G" if self is Op.REDUCE_GRAD else self.name[0]


COMPUTE = (Op.F, Op.B, Op.I, Op.W)
MESSAGES = (Op.SEND_F, Op.RECV_F, Op.SEND_B, Op.RECV_B)
OF_A_STAGE = (Op.UNSHARD, Op.RESHARD, Op.REDUCE_GRAD)  # these name no microbatch


class Action(NamedTuple):
    """``parts`` is set for ``OVERLAP_F_B`` alone, whose own stage is -1; ``peer`` for a message of a skip alone."""

    stage: int
    op: Op
    microbatch: int | None = None
    parts: tuple[Any, ...] = ()
    peer: int | None = None

    def __str__(self) -> str:
        if self.parts:
            return f"({';'.join(map(str, self.parts))}){self.op.name}"
        way = "" if self.peer is None else f"{'to' if self.op in (Op.SEND_F, Op.SEND_B) else 'from'}{self.peer}"
        return f"{self.stage}{self.op.name}{'' if self.microbatch is None else self.microbatch}{way}"

    def __repr__(self) -> str:
        return str(self)

    @classmethod
    def of_row(cls, stage: int, op: int, microbatch: int) -> Action:
        """The action of a row of a table, where -1 stands for no microbatch."""
        return cls(int(stage), Op(int(op)), None if microbatch < 0 else int(microbatch))

    @classmethod
    def parse(cls, text: str) -> Action:
        """The inverse of ``str``. Raises ``ValueError`` that shows the text and the spelling expected."""
        text = text.strip()
        if not (single := _SINGLE.fullmatch(text)):
            return cls._parse_pair(text)
        stage, name, microbatch = single.groups()
        op = _BY_NAME[name]
        if (op in OF_A_STAGE) == bool(microbatch):
            what = "names no microbatch" if op in OF_A_STAGE else f"needs a microbatch, like {text}0"
            raise ValueError(f"{text!r}: {name} {what}")
        return cls(int(stage), op, int(microbatch) if microbatch else None)

    @classmethod
    def _parse_pair(cls, text: str) -> Action:
        if pair := _PAIR.fullmatch(text):
            parts = tuple(cls.parse(part) for part in pair[1].split(";"))
            if len(parts) != 2 or any(part.op not in COMPUTE for part in parts):
                raise ValueError(f"{text!r}: OVERLAP_F_B joins exactly two computations, like (0F4;7B2)OVERLAP_F_B")
            return cls(-1, Op.OVERLAP_F_B, None, parts)
        shown = text if len(text) <= 40 else text[:37] + "..."
        hint = f"; did you mean {text.upper()}?" if _SINGLE.fullmatch(text.upper()) else ""
        raise ValueError(
            f"{shown!r} is not an action; write <stage><op><microbatch>, like 2F0, 2B0, 2I0, 2W0, 2SEND_F0{hint}"
        )


_BY_NAME = {op.name: op for op in Op if op != Op.OVERLAP_F_B}
_SINGLE = re.compile(rf"([0-9]{{1,6}})({'|'.join(_BY_NAME)})([0-9]{{0,9}})")
_PAIR = re.compile(r"\((.+)\)OVERLAP_F_B")
