"""A job of Slurm as seen from where it was submitted: what it prints, what becomes of it, and how it ended."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

OVER = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "TIMEOUT",
}
SHORTEST, LONGEST = 0.2, 5.0  # seconds between two questions to the controller
LOOK = 0.1  # seconds between two looks at what was printed
SECONDS = 30.0  # for which the controller may take to answer
OF_SUBMITIT = re.compile(r"submitit (?:INFO|WARNING|ERROR) \(")
OF_SLURM = re.compile(r"(?:srun|slurmstepd\S*): ")


@dataclass(frozen=True)
class State:
    """What the controller says of a job.

    Args:
        word: ``PENDING``, ``RUNNING`` ...; ``GONE`` where it does not know the job any more, "" where it is silent.
        reason: why it waits.
        nodes: where it runs.
        code: of its script, which is the largest of its tasks'; of one that a signal ended, 128 and its number.
    """

    word: str
    reason: str = ""
    nodes: str = ""
    code: int = 0

    @property
    def over(self) -> bool:
        return self.word in OVER or self.word == "GONE"


def state_of(job: str) -> State:
    """Ask the controller. It forgets a job some minutes after its end."""
    try:
        words = ["scontrol", "-o", "show", "job", job]
        done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return State("")
    if done.returncode:
        return State("GONE" if "Invalid job id" in done.stderr else "")
    found = {key: value for key, _, value in (word.partition("=") for word in done.stdout.split())}
    code, _, number = found.get("ExitCode", "").partition(":")
    ended = int(code) if code.isdigit() else 0
    if number.isdigit() and int(number):
        ended = 128 + int(number)
    return State(found.get("JobState", ""), found.get("Reason", ""), found.get("NodeList", ""), ended)


class Printed:
    """What a job prints into files, handed on line by line, as it comes.

    Args:
        files: with what takes the lines of each.
    """

    def __init__(self, files: dict[Path, Callable[[str], None]]) -> None:
        self._files = files
        self._read = dict.fromkeys(files, 0)
        self.of_slurm: list[str] = []  # what Slurm itself had to say

    def hand_on(self, last: bool = False) -> None:
        """The lines that are new; ``last``: also one that has no end."""
        for path, take in self._files.items():
            with suppress(FileNotFoundError), path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._read[path]:  # a job that begins again
                    self._read[path] = 0
                file.seek(self._read[path])
                whole, end, rest = file.read().rpartition(b"\n")
                self._read[path] += len(whole + end)
                for line in (whole + end + (rest if last else b"")).decode(errors="replace").splitlines():
                    self._take(line, take)

    def _take(self, line: str, take: Callable[[str], None]) -> None:
        if OF_SLURM.match(line):
            self.of_slurm.append(line)
        elif not OF_SUBMITIT.match(line):
            take(line)


def wait_for(job: str, printed: Printed, is_settled: Callable[[], bool], tell: Callable[[State], None]) -> State:
    """Hand on what a job prints until it is over; how it ended.

    Args:
        is_settled: whether the run has said how it ended, so that the job will be over at once.
        tell: is told of each state that is new.
    """
    pause, asked, state = SHORTEST, 0.0, State("")
    while True:
        printed.hand_on()
        now = time.monotonic()
        if now - asked >= (SHORTEST if is_settled() else pause):
            before, state = state, state_of(job)
            if (state.word, state.reason) != (before.word, before.reason):
                pause = SHORTEST
                tell(state)
            asked, pause = time.monotonic(), min(1.5 * pause, LONGEST)
            if state.over:
                printed.hand_on(last=True)
                return state
        time.sleep(LOOK)
