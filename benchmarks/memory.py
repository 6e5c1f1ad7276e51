"""What a run holds in memory: the parent, each rank and the reference, at their highest.

    python -m benchmarks.memory --width 4096 --stages 4
    python -m benchmarks.memory --width 4096 --stages 4 launch.start_method=spawn

Processes are looked at from outside, every 50 ms (``/proc/PID/smaps_rollup``, Linux). Private is what one process alone
holds and would be free without it. A share (PSS) also counts what processes share, each its part. Everything is told in
multiples of the model.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

LOOK = 0.05  # seconds
MB = 2**20


def children(pid: int) -> list[int]:
    """The processes that ``pid`` has started, in the order in which it did."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_helper(pid: int) -> bool:
    """Whether it is the process by which Python cleans up after those that it has spawned."""
    try:
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True


def looked_at(pid: int) -> tuple[float, float] | None:
    """Private and proportional bytes of a process; None where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return None
    kilobytes = {words[0]: int(words[1]) for words in map(str.split, lines)}
    private = kilobytes["Private_Clean:"] + kilobytes["Private_Dirty:"]
    return private * 1024.0, kilobytes["Pss:"] * 1024.0


def peaks(command: list[str]) -> Iterator[tuple[float, float]]:
    """The highest private and proportional bytes of the command, and of each process that it starts."""
    found: dict[int, tuple[float, float]] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            for pid in (process.pid, *(child for child in children(process.pid) if not is_helper(child))):
                if (now := looked_at(pid)) is not None:
                    before = found.get(pid, (0.0, 0.0))
                    found[pid] = max(before[0], now[0]), max(before[1], now[1])
            time.sleep(LOOK)
        if process.returncode:
            raise SystemExit(f"the run failed with {process.returncode}")
    yield from found.values()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--stages", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("more", nargs="*", help="more words for the run: optimizer=sgd launch.start_method=spawn")
    asked = parser.parse_args()
    size = asked.stages * (2 * asked.width**2 + 2 * asked.width) * 4
    with tempfile.TemporaryDirectory() as folder:
        words = [f"model.d_hid={asked.width}", f"stages={asked.stages}", f"steps={asked.steps}", "batch_size=16"]
        command = [sys.executable, "-m", "pipezoo", "model=multi_mlp", *words, f"hydra.run.dir={folder}/run"]
        found = list(peaks([*command, *asked.more]))
    names = ["parent", *(f"rank {rank}" for rank in range(asked.stages)), "reference"]
    print(f"model {size / MB:.0f} MB, a stage {size / asked.stages / MB:.0f} MB")
    for name, (private, share) in zip(names, found, strict=False):
        print(
            f"{name:10} private {private / MB:6.0f} MB, {private / size:5.2f} of the model; share {share / size:5.2f}"
        )


if __name__ == "__main__":
    main()
