# ruff: noqa: E501 - a row is a line
"""What can happen to a run, and what must become of it. ``python -m tests.supervisor.fault_rows`` measures all rows and
writes ``docs/faults.md``.

FAST: seconds from an error or a death to the end of the command; the deadline of a run that hangs comes on top.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.command import Command, command

FAST = 1.0
DEADLINE = 1.0  # seconds without progress, in these tests
DOCS = Path(__file__).parents[2] / "docs" / "faults.md"


@dataclass(frozen=True)
class Row:
    """``words`` are typed; ``{last}`` stands for the last rank. ``line`` is a regular expression for what is said."""

    what: str
    words: str
    code: int
    line: str
    hangs: bool = False

    def typed(self, ranks: int) -> list[str]:
        words = self.words.format(last=ranks - 1)
        return f"stages={ranks} {words} {self.limit}".split()

    @property
    def limit(self) -> str:
        """The deadline that is to pass; the other one is long, and so is every start."""
        key = "first_step_timeout" if self.words.endswith("fault.at=start") else "step_timeout"
        return f"launch.{key}={DEADLINE}" if self.hangs else ""


LAST = "fault.rank={last} fault.step=1"
HERE = r"rank {last} \(stage {last}, step 1, at {last}"
ROWS = [
    Row("raises before it joins", "fault=raise fault.rank={last} fault.at=start", 4, r"rank {last} \(starting\): RuntimeError: "),
    Row("raises while it builds", "fault=raise fault.rank={last} fault.at=build", 4, r"rank {last} \(building its stages\): RuntimeError: "),
    Row("raises in a forward", f"fault=raise {LAST} fault.at={{last}}F2", 4, HERE + r"F2\): RuntimeError: "),
    Row("raises in a backward", f"fault=raise {LAST} fault.at={{last}}B1", 4, HERE + r"B1\): RuntimeError: "),
    Row("raises in the optimizer", f"fault=raise {LAST} fault.at=update", 4, r"rank {last} \(step 1, updating its parameters\): "),
    Row("raises on the first rank", "fault=raise fault.rank=0 fault.at=0B1", 4, r"rank 0 \(stage 0, step 0, at 0B1\): RuntimeError: "),
    Row("raises, with a stray thread", f"fault=thread {LAST} fault.at={{last}}F0", 4, HERE + r"F0\): RuntimeError: "),
    Row("is killed by SIGKILL", f"fault=kill {LAST} fault.at={{last}}F1", 4, r"rank {last} was killed by SIGKILL \(out of memory\?\) \(stage {last}, step 1, at {last}F1\)"),
    Row("is killed by SIGSEGV", f"fault=kill fault.signal=SIGSEGV {LAST} fault.at={{last}}F1", 4, "rank {last} was killed by SIGSEGV "),
    Row("is killed by SIGABRT", f"fault=kill fault.signal=SIGABRT {LAST} fault.at={{last}}F1", 4, "rank {last} was killed by SIGABRT "),
    Row("runs out of memory", f"fault=oom {LAST} fault.at={{last}}F1", 4, HERE + r"F1\): RuntimeError: .*can't allocate memory"),
    Row("leaves with exit code 0", f"fault=exit {LAST} fault.at={{last}}F1", 4, r"rank {last} left early with exit code 0 \(stage"),
    Row("leaves with exit code 3", f"fault=exit fault.code=3 {LAST} fault.at={{last}}F1", 4, "rank {last} left early with exit code 3 "),
    Row("calls sys.exit(0)", f"fault=exit fault.cleanly=true {LAST} fault.at={{last}}F1", 4, HERE + r"F1\): something called sys.exit\(0\) before its end"),
    Row("cannot write (disk full)", f"fault=disk_full {LAST} fault.at=leave", 6, "cannot be written: File too large"),
    Row("gets a parameter that is NaN", f"fault=poison {LAST}", 5, r"step 1: the loss of microbatch \d on stage {last} is nan"),
    Row("starts from other numbers", "fault=drift fault.rank={last} fault.at=start", 3, "rank {last} starts with other parameters than rank 0"),
    Row("is halted (SIGSTOP)", f"fault=stop {LAST} fault.at={{last}}F1", 124, r"rank {last} is stopped \(stage {last}, step 1, at {last}F1\)", hangs=True),
    Row("is halted while the others wait", "fault=stop fault.rank=0 fault.at=0F2 fault.step=1", 124, r"rank 0 is stopped .*; rank 1 waits at 1RECV_F\d for rank 0, which is stopped in 0F2 for \d s", hangs=True),
    Row("waits for ever", f"fault=hang {LAST} fault.at={{last}}B1", 124, r"rank {last} does not move \(stage {last}, step 1, at {last}B1\)", hangs=True),
    Row("computes for ever", f"fault=spin {LAST} fault.at={{last}}B1", 124, r"rank {last} does not move \(stage {last}, step 1, at {last}B1\)", hangs=True),
    Row("never joins the others", "fault=hang fault.rank={last} fault.at=start", 124, r"launch.first_step_timeout=1 s: rank {last} does not move \(starting\); rank 0 waits at joining the others for rank {last}", hangs=True),
    Row("hangs in the optimizer", f"fault=hang {LAST} fault.at=update", 124, r"rank {last} does not move \(step 1, updating", hangs=True),
    Row("is slow for 0.3 s", f"fault=hang fault.seconds=0.3 {LAST}", 0, ""),
]  # fmt: skip


def seconds_after(ended: Command) -> float | None:
    """Seconds from the moment at which the fault struck to the end of the command."""
    log = ended.folder / "run" / "ranks.log"
    struck = re.search(r"strikes at ([\d.]+)", log.read_text()) if log.exists() else None
    return ended.ended - float(struck[1]) if struck else None


def measured() -> Iterator[str]:
    for row in ROWS:
        cells = []
        for ranks in (2, 4):
            with tempfile.TemporaryDirectory() as folder:
                ended = command(Path(folder), *row.typed(ranks)).wait()
                left = ended.gone_after(1.0)
                seconds = seconds_after(ended)
                cells.append("–" if not ended.code else f"{(seconds or 0.0) - DEADLINE * row.hangs:.2f} s")
                assert (ended.code, left < 1.0) == (row.code, True), (row, ended.err)
                said = ended.err.strip().removeprefix("error: ").replace(f"{folder}/run/", "FOLDER/")
        on_top = "deadline + " if row.hangs else ""
        typed = " ".join(row.typed(4)[1:]).removesuffix(row.limit).strip()
        yield f"| {row.what} | `{typed}` | {row.code} | {on_top}{cells[0]} | {on_top}{cells[1]} | {said or 'nothing: the run ends well'} |"


def main() -> None:
    text = DOCS.read_text(encoding="utf-8")
    start, end = "<!-- table -->\n", "<!-- end of table -->"
    before, after = text.split(start)[0], text.split(end)[1]
    head = (
        "| A rank ... | typed | exit code | 2 ranks | 4 ranks | what is said (4 ranks) |\n|---|---|---|---|---|---|\n"
    )
    DOCS.write_text(before + start + head + "\n".join(measured()) + "\n" + end + after, encoding="utf-8")


if __name__ == "__main__":
    main()
