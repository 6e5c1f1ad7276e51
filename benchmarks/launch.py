"""Whole commands: pipezoo's against the same training written by hand under torchrun, and a sweep against many of them.

    python -m benchmarks.launch [--repeats 3] [--ranks 2,4,8]     alternating; medians of wall and CPU seconds, ratios
    python -m benchmarks.launch --world --ranks 4                 pipezoo under torchrun, too, against that script
    python -m benchmarks.launch --sweep [--jobs 16]               a sweep of two-rank jobs against that many launches

Ten steps of 1F1B with 8 microbatches of 4 rows on equal perceptrons of width 256, one thread a rank. CPU seconds are
those of all processes of the command. pipezoo's run includes its config, checks, recorded timeline and files.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
BY_HAND = REPOSITORY / "benchmarks" / "by_hand.py"
STEPS = 10


def by_hand(ranks: int, folder: str) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    return [*launcher, str(BY_HAND), "--steps", str(STEPS)]


def ours(ranks: int, folder: str, *words: str) -> list[str]:
    model = ["model=multi_mlp", "split=modules", "schedule=1f1b", f"stages={ranks}", f"steps={STEPS}"]
    return [sys.executable, "-m", "pipezoo", *model, f"hydra.run.dir={folder}/run", *words]


def unverified(ranks: int, folder: str) -> list[str]:
    return ours(ranks, folder, "verify=false")


def in_a_world(ranks: int, folder: str) -> list[str]:
    """pipezoo's ranks are the processes of torchrun, as those of the script by hand are."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    python, *words = unverified(ranks, folder)
    return [python, *launcher, *words]


def sweep(jobs: int, folder: str) -> list[str]:
    seeds = ",".join(map(str, range(jobs)))
    return ours(2, folder, "verify=false", "-m", f"seed={seeds}", f"hydra.sweep.dir={folder}/sweep")


def measure(command: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of a command and all its processes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def single(ranks: list[int], repeats: int, world: bool) -> None:
    commands = {"torchrun, by hand": by_hand, "pipezoo verify=false": unverified, "pipezoo verify=true": ours}
    if world:
        commands = {"torchrun, by hand": by_hand, "torchrun, pipezoo verify=false": in_a_world}
    print("| ranks | command | wall | CPU | wall ratio | CPU ratio |\n|---|---|---|---|---|---|")
    for count in ranks:
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(repeats):
            for name, command in commands.items():
                with tempfile.TemporaryDirectory() as folder:
                    times[name].append(measure(command(count, folder)))
        base: tuple[float, float] | None = None
        for name, pairs in times.items():
            wall, cpu = (statistics.median(column) for column in zip(*pairs, strict=True))
            base = base or (wall, cpu)
            print(f"| {count} | {name} | {wall:.2f} s | {cpu:.2f} s | {wall / base[0]:.2f} | {cpu / base[1]:.2f} |")


def sweeps(jobs: int, repeats: int) -> None:
    pairs = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            launches = [measure(by_hand(2, folder)) for _ in range(jobs)]
            pairs.append((measure(sweep(jobs, folder)), tuple(map(sum, zip(*launches, strict=True)))))
    (wall, cpu), (their_wall, their_cpu) = (
        tuple(statistics.median(pair[side][i] for pair in pairs) for i in range(2)) for side in range(2)
    )
    print(f"{jobs} launches by torchrun: {their_wall:.1f} s, CPU {their_cpu:.1f} s")
    print(f"a sweep of {jobs} jobs:      {wall:.1f} s, CPU {cpu:.1f} s")
    print(f"ratios: wall {wall / their_wall:.3f}, CPU {cpu / their_cpu:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ranks", default="2,4,8")
    parser.add_argument("--world", action="store_true")
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--jobs", type=int, default=16)
    options = parser.parse_args()
    if options.sweep:
        sweeps(options.jobs, options.repeats)
    else:
        single([int(count) for count in options.ranks.split(",")], options.repeats, options.world)


if __name__ == "__main__":
    main()
