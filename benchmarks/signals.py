"""Ctrl-C and SIGTERM at random moments of real commands: how each ends, and what it leaves.

    python -m benchmarks.signals [--count 100] [--seed 7]

A trial starts a command (training by processes, by virtual ranks, a simulation, a sweep) in a session of its own, sends
it one signal between its first moment and the time that the same command takes undisturbed, and looks: the exit code
is 130 or 143, no process of the session is alive a second later, no result says `ok` of a run that was cut short. A
signal in the first moments, before Python runs our code, ends the process by itself; one that comes too late finds a
command that ended well. Exit code 1 where anything else was seen.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
SMALL = ("model=multi_mlp", "model.d_hid=16", "split=modules", "stages=2", "microbatches=4")
KINDS = {
    "train": (*SMALL, "steps=30", "hydra.run.dir=here"),
    "virtual": (*SMALL, "steps=30", "launch=virtual", "hydra.run.dir=here"),
    "simulate": ("simulate", "ranks=16", "microbatches=256", "schedule=zbv", "hydra.run.dir=here"),
    "sweep": (*SMALL, "steps=5", "verify=false", "-m", "seed=0,1", "hydra.sweep.dir=here"),
}
EXPECTED = {signal.SIGINT: 130, signal.SIGTERM: 143}
AT_ITS_END = 1.0  # seconds before its end in which a command may not see a signal any more
TIME_LIMIT = 120.0  # seconds after the signal in which a command ends


def start(kind: str, folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, "-m", "pipezoo", *KINDS[kind]],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def duration(kind: str) -> float:
    """Seconds that the command takes undisturbed."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        process = start(kind, Path(folder))
        _, errors = process.communicate()
        if process.returncode:
            raise SystemExit(f"{kind}: exit code {process.returncode}\n{errors}")
        return time.monotonic() - began


def left_over(session: int) -> list[int]:
    """The processes of a session that are alive a second from now."""
    until = time.monotonic() + 1.0
    while (found := alive(session)) and time.monotonic() < until:
        time.sleep(0.02)
    return found


def alive(session: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, own = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(own) == session and state not in "ZX":
            found.append(int(stat.parent.name))
    return found


def trial(kind: str, number: signal.Signals, moment: float) -> tuple[str, str]:
    """How it ended, in a word, and what is wrong with it, in a line; empty where nothing is."""
    with tempfile.TemporaryDirectory() as name:
        process = start(kind, Path(name))
        time.sleep(moment)
        too_late = process.poll() is not None
        process.send_signal(number)
        sent = time.monotonic()
        try:
            _, errors = process.communicate(timeout=TIME_LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return "hangs", f"not ended {TIME_LIMIT:g} s after the signal"
        took = time.monotonic() - sent
        left = left_over(process.pid)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        states = [json.loads(path.read_text()) for path in Path(name).rglob("result.json")]
        return judge(process.returncode, number, 0.0 if too_late else took, errors, left, states)


def judge(
    code: int, number: signal.Signals, took: float, errors: str, left: list[int], results: list[dict]
) -> tuple[str, str]:
    """As :func:`trial`; ``took``: seconds from the signal to the end, 0 where the signal came after it."""
    running = [result for result in results if result.get("status") == "running"]
    if left:
        return "left", f"{len(left)} processes are left"
    if running:
        return "running", "a result says that its run is running"
    if code == EXPECTED[number]:
        lines = errors.splitlines()
        wrong = "" if len(lines) == 1 and lines[0].startswith("interrupted") else f"it said {errors!r}"
        return str(code), wrong
    if code == -number:
        return "before our code runs", "" if not results else f"exit code {code} after it had begun"
    if code == 0 and took < AT_ITS_END and all(result.get("status") == "ok" for result in results):
        return "over before", ""
    return f"exit code {code}", f"said {errors!r}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` ignores it, and the commands inherit that
    random_numbers = random.Random(options.seed)
    durations = {kind: duration(kind) for kind in KINDS}
    print("undisturbed: " + ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in durations.items()), flush=True)
    ends: Counter[str] = Counter()
    faults = 0
    for at in range(options.count):
        kind, number = random_numbers.choice([*KINDS]), random_numbers.choice([*EXPECTED])
        moment = random_numbers.random() * durations[kind]
        end, wrong = trial(kind, number, moment)
        ends[end] += 1
        faults += bool(wrong)
        if wrong:
            print(f"{at}: {kind}, {number.name} after {moment:.2f} s: {end}: {wrong}", flush=True)
    print(", ".join(f"{count} x {end}" for end, count in ends.most_common()))
    print(f"{faults} of {options.count} ended otherwise than promised")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
