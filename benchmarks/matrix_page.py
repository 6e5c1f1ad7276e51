"""The page of the matrix: how a cell ended, the table of a splitter, and below it why a cell has no verdict."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pipezoo as pz
from pipezoo.errors import ConfigError

Cells = dict[tuple[str, str, str, str], "Cell"]  # by splitter, model, schedule and executor
EXECUTORS = ("native", "torch")
# torch has classes of these
SCHEDULES = ("gpipe", "1f1b", "interleaved_1f1b", "looped_bfs", "interleaved_zero_bubble", "zbv", "dualpipev")
TIED = 1e-6  # largest relative difference of tied weights, whose gradients are added up in another order
KINDS = {2: "refused", 3: "not verified", 4: "stopped", 5: "not finite"}  # exit codes

INTRODUCTION = """\
# Which pipelines there are

Written by `python -m benchmarks.matrix`, which trained each cell for two steps on virtual ranks (4 stages; 2 of
`model_with_param_alias`) and held it against one device. The schedules are those of `conf/schedule` that take any size.
A cell shows `executor=native`. `executor=torch` ran the seven schedules that torch has classes of; where it ended
otherwise, a line below the table says how.

* `exact`: every loss, gradient and parameter equal bit for bit.
* `close`: tied weights, whose gradient is added up in another order. The largest relative difference stands beside it.
* `refused`: exit code 2, before anything ran. `stopped`: exit code 4, an error while it ran. `not verified`: exit
  code 3, other numbers than one device's. The program's own line stands below the table.

A model that a splitter does not fit is asked once, on 1F1B. `split=balanced` cuts as the other splitters do, at places
of its own choice; a few models stand for all.
"""


@dataclass(frozen=True)
class Cell:
    """One pipeline, and how its run ended."""

    words: tuple[str, ...]
    applies: bool
    result: dict[str, Any]

    @property
    def is_right(self) -> bool:
        """Verified as it should be where it applies, refused before anything was started where it does not."""
        if not self.applies:
            return self.result.get("exit_code") == ConfigError.exit_code
        return is_verified(self.result, any("tied" in word or "alias" in word for word in self.words))

    @property
    def text(self) -> str:
        """What stands in the table: its verdict, or the word for its exit code."""
        verified, difference = self.result.get("verified"), self.result.get("max_relative_difference")
        if verified == "close":
            return f"close {difference:.0e}"
        return "exact" if verified == "exact" else KINDS.get(self.result.get("exit_code", 0), "failed")

    @property
    def kind(self) -> str:
        """Its text without a number."""
        return self.text.partition(" ")[0] if self.text.startswith("close") else self.text


def is_verified(result: dict[str, Any], tied: bool) -> bool:
    """Whether a run's result is exact, or, with tied weights, close to within ``TIED``."""
    if result.get("status") != "ok":
        return False
    return result["verified"] == "exact" or (tied and result["max_relative_difference"] <= TIED)


def table(splitter: str, cells: Cells) -> str:
    """The table of one splitter: what native gave, and below it what torch gave otherwise, and the lines of errors."""
    own = {(row, schedule, executor): cell for (cut, row, schedule, executor), cell in cells.items() if cut == splitter}
    ran = {schedule for (_, schedule, _), cell in own.items() if cell.applies}
    names = [name for name in pz.schedules.names() if name in ran]
    lines = [f"## split={splitter}", ""]
    if names:
        lines += ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for row in dict.fromkeys(row for row, *_ in own):
        given = [own.get((row, name, "native")) for name in names]
        if any(cell is not None and cell.applies for cell in given):
            lines.append(f"| {row} | " + " | ".join(cell.text if cell else "" for cell in given) + " |")
    notes = [*_notes(own, "native", True), *_notes(own, "torch", True), *_notes(own, "native", False)]
    return "\n".join([*lines, "", *notes, ""]).rstrip() + "\n"


def _notes(own: dict[tuple[str, str, str], Cell], executor: str, applies: bool) -> list[str]:
    """A line for each model and error of an executor, with the schedules that gave it."""
    said: dict[tuple[str, str, str | None], list[str]] = {}
    for (row, schedule, of), cell in own.items():
        native = own.get((row, schedule, "native"))
        as_native = executor == "torch" and native is not None and native.kind == cell.kind
        if of == executor and cell.applies == applies and not as_native:
            error = None if cell.result.get("verified") else _general(str(cell.result.get("error")))
            if error or executor == "torch":
                said.setdefault((row, cell.text, error), []).append(schedule)
    who = f"`executor={executor}`, " if applies else ""
    return [
        f"* {who}`{row}`{f', {_all(schedules)}' if applies else ''}: {text}{f'. `{error}`' if error else ''}"
        for (row, text, error), schedules in said.items()
    ]


def _all(schedules: Sequence[str]) -> str:
    return "every schedule" if set(schedules) >= set(SCHEDULES) else ", ".join(schedules)


def _general(error: str) -> str:
    """An error's line without what differs between cells of one kind: stage, step, action and file."""
    line = error.partition("; more in ")[0]
    return re.sub(r"\(stage \d+, step \d+, at \w+\)", "(...)", line).replace("`", "'")


def count(cells: Cells) -> str:
    """How many cells there are of each kind, by executor."""
    lines = []
    for executor in EXECUTORS:
        ran = [cell for (*_, of), cell in cells.items() if of == executor and cell.applies]
        kinds = Counter(cell.kind for cell in ran)
        told = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
        lines.append(f"`executor={executor}`: {len(ran)} cells: {told}.")
    other = sum(not cell.applies for cell in cells.values())
    return "\n".join([*lines, f"{other} models do not fit a splitter."])
