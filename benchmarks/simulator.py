"""How fast schedules of a thousand to ten million actions are generated, checked, simulated and lowered, and torch's.

    python benchmarks/simulator.py            both tables below, about five minutes
    python benchmarks/simulator.py --ours     the first one, without torch

First table: pipezoo alone, every row in fresh processes, so that the peak memory is that row's, before lowering.
Second table: the same schedule by torch and by pipezoo in turn, in one process, on the sizes that torch survives.
Times are medians, in seconds of CPU (nothing here uses a second core), so that a busy machine changes them less.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

OURS = [  # schedule, ranks, microbatches
    ("one_f_one_b", 8, 64),
    ("one_f_one_b", 16, 320),
    ("one_f_one_b", 64, 512),
    ("interleaved_zero_bubble", 64, 512),
    ("one_f_one_b", 256, 2048),
    ("interleaved_zero_bubble", 256, 1024),
    ("one_f_one_b", 8, 65536),
    ("one_f_one_b", 1024, 4096),
]
BOTH = [  # schedule, torch's class, ranks, microbatches
    ("interleaved_zero_bubble", "ScheduleInterleavedZeroBubble", 8, 32),
    ("interleaved_zero_bubble", "ScheduleInterleavedZeroBubble", 16, 64),
    ("interleaved_zero_bubble", "ScheduleInterleavedZeroBubble", 32, 128),
    ("interleaved_zero_bubble", "ScheduleInterleavedZeroBubble", 64, 256),
    ("interleaved_zero_bubble", "ScheduleInterleavedZeroBubble", 64, 512),
    ("interleaved_1f1b", "ScheduleInterleaved1F1B", 64, 256),
    ("zbv", "ScheduleZBVZeroBubble", 64, 256),
]
LARGEST_TO_LOWER = 1_200_000  # actions; as lists of Python objects they take 400 bytes each, messages included
TITLES = ("schedule", "p, m", "actions", "generate", "check", "simulate", "the three", "actions/s", "peak memory")
TITLES += ("lower", "all lists")
Times = dict[str, float]


def ours(name: str, num_ranks: int, num_microbatches: int) -> Times:
    """Seconds of each part: the schedule is generated, checked, simulated with a p2p message, and lowered.

    Lowered means: the messages of all ranks written out and proved, and the list of one rank made of it, which is what
    the process of a rank needs; ``lists`` are those of all ranks.
    """
    from pipezoo.costs.unit import unit
    from pipezoo.schedule import schedule
    from pipezoo.schedule.lowering import with_messages
    from pipezoo.simulator.simulate import simulate

    generate = getattr(importlib.import_module(f"pipezoo.schedules.{name}"), name)
    times: Times = {}
    prove = schedule.prove  # type: ignore[attr-defined]
    schedule.prove = timed(times, "check", prove)  # type: ignore[attr-defined]
    try:
        order = timed(times, "generate", generate)(num_ranks, num_microbatches)
    finally:
        schedule.prove = prove  # type: ignore[attr-defined]
    times["generate"] -= times["check"]
    cost = unit(order.num_stages, order.num_stages // num_ranks, p2p=0.1)
    timed(times, "simulate", simulate)(order, cost)
    times |= {"actions": order.num_actions, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if order.num_actions <= LARGEST_TO_LOWER:
        lowered = timed(times, "lower", with_messages)(order)
        timed(times, "lower", lambda: lowered.order[0])()
        timed(times, "lists", lambda: list(lowered.order))()
    return times


def torchs(name: str, num_ranks: int, num_microbatches: int) -> Times:
    """Seconds of the same parts in torch, whose constructor generates and lowers; it simulates what it lowered."""
    from unittest import mock

    from torch.distributed.pipelining import PipelineStage, schedules

    stage = mock.create_autospec(PipelineStage, instance=True)
    stage.group_rank, stage.group_size, stage.submod, stage.num_stages = 0, num_ranks, None, 2 * num_ranks
    times: Times = {}
    runtime = schedules._PipelineScheduleRuntime
    build_pipeline = runtime._prepare_schedule_with_comms
    runtime._prepare_schedule_with_comms = timed(times, "lower", build_pipeline)
    try:
        built = timed(times, "generate", getattr(schedules, name))([stage, stage], num_microbatches)
    finally:
        runtime._prepare_schedule_with_comms = build_pipeline
    times["generate"] -= times["lower"]
    known = {  # it does not know what it itself lowered for sharded parameters
        rank: [action for action in actions if "SHARD" not in str(action) and "REDUCE" not in str(action)]
        for rank, actions in built.pipeline_order_with_comms.items()
    }
    timed(times, "simulate", schedules._simulate_comms_compute)(
        known, lambda index: built.stage_index_to_group_rank[index], 2 * num_ranks
    )
    return times


def timed(times: Times, key: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which adds its seconds to ``times[key]``."""

    def run(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            times[key] = times.get(key, 0.0) + time.process_time() - start

    return run


def medians(runs: list[Times]) -> Times:
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def in_a_fresh_process(size: tuple[str, int, int]) -> Times:
    command = [sys.executable, __file__, "--size", *map(str, size)]
    times: Times = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return times


def table_of_ours(repeats: int) -> None:
    print(f"| {' | '.join(TITLES)} |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for size in OURS:
        row = medians([in_a_fresh_process(size) for _ in range(repeats)])
        total = row["generate"] + row["check"] + row["simulate"]
        cells = [size[0], f"{size[1]}, {size[2]}", f"{row['actions']:,.0f}"]
        cells += [seconds(row[key]) for key in ("generate", "check", "simulate")] + [f"**{seconds(total)}**"]
        cells += [f"{row['actions'] / total / 1e6:.1f} M", f"{row['megabytes']:.0f} MB"]
        cells += [seconds(row[key]) if key in row else "-" for key in ("lower", "lists")]
        print(f"| {' | '.join(cells)} |", flush=True)


def table_of_both(repeats: int) -> None:
    print("| schedule, v=2 | p, m | actions | | generate | lower | simulate | all | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, theirs, *size in BOTH:
        runs = [(ours(name, *size), torchs(theirs, *size)) for _ in range(repeats)]
        mine, other = medians([run[0] for run in runs]), medians([run[1] for run in runs])
        mine["generate"] += mine.pop("check")
        keys = ("generate", "lower", "simulate")
        mine["all"], other["all"] = (sum(row[key] for key in keys) for row in (mine, other))
        label = f"| {name} | {size[0]}, {size[1]} | {mine['actions']:,.0f} "
        print(f"{label}| torch | {' | '.join(seconds(other[key]) for key in (*keys, 'all'))} | |")
        ratios = ", ".join(f"{key} {other[key] / mine[key]:.0f}x" for key in keys)
        print(
            f"| | | | pipezoo | {' | '.join(seconds(mine[key]) for key in (*keys, 'all'))} "
            f"| **{other['all'] / mine['all']:.0f}x** ({ratios}) |",
            flush=True,
        )


def seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", action="store_true", help="leave torch out")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each row, of which the median is shown")
    parser.add_argument("--size", nargs=3, metavar=("SCHEDULE", "RANKS", "MICROBATCHES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.size:
        name, num_ranks, num_microbatches = arguments.size
        ours(name, 2, 4)  # numpy loads some of itself on first use
        print(json.dumps(ours(name, int(num_ranks), int(num_microbatches))))
        return
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    table_of_ours(arguments.repeats)
    if not arguments.ours:
        print()
        table_of_both(arguments.repeats)


if __name__ == "__main__":
    main()
