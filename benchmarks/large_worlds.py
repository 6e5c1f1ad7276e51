"""A 70B-like model on 64, 1024 and 16,384 devices, and published runs against what we predict of them.

    python -m benchmarks.large_worlds            print the tables
    python -m benchmarks.large_worlds --write    write them into docs/large-worlds.md

Nothing is measured here: every number is arithmetic and the simulator, so the same on any machine but for the times.
"""

from __future__ import annotations

import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from benchmarks import published_runs
from benchmarks.published_runs import FITTED, H100, LLAMA3, SC21, Run
from pipezoo.installed import conf_dir
from pipezoo.planner.devices.evaluate import Outcome
from pipezoo.planner.devices.options import DeviceOptions
from pipezoo.planner.devices.search import DevicePlans, make_device_plans
from pipezoo.results.units import amount

PAGE = Path(__file__).resolve().parent.parent / "docs" / "large-worlds.md"
DEVICES = (64, 1024, 16384)
BEST = 3  # rows shown for each number of devices
Predict = Callable[[Run], tuple[float, Outcome]]


def options(name: str, **changed: Any) -> DeviceOptions:
    """The options of ``conf/plan/devices.yaml``, some of them changed."""
    arguments = yaml.safe_load((conf_dir() / "plan" / f"{name}.yaml").read_text(encoding="utf-8"))
    for key in ("_target_", "defaults"):
        arguments.pop(key, None)
    lists = {key: tuple(value) for key, value in arguments.items() if isinstance(value, list)}
    return DeviceOptions(**(arguments | lists | changed))


def plans_of(devices: int) -> DevicePlans:
    """A plan of the 70B-like model for so many H100."""
    return make_device_plans(options("devices", devices=devices), published_runs.cluster("h100"))


def plans_table(found: Sequence[DevicePlans]) -> str:
    """The best grids for each number of devices."""
    head = "| devices | pp x dp x tp | schedule | v | m | rows | recompute | step | tokens/s | TFLOP/s | MFU | memory |"
    lines = [head, "|---" * 12 + "|"]
    for plans in found:
        for outcome in plans.ranked[:BEST]:
            one, grid = outcome.candidate, outcome.candidate.grid
            parts = ", ".join(f"{name} {amount(size)}" for name, size in outcome.memory.parts().items())
            cells = [
                f"{plans.options.devices:,}",
                f"{grid.pp} x {grid.dp} x {grid.tp}",
                f"`{one.schedule}`",
                one.stages_per_rank,
                one.microbatches,
                one.rows,
                "full" if one.recompute else "none",
                f"{outcome.step:.3g} s",
                f"{plans.tokens_per_second(outcome):,.0f}",
                f"{plans.flops(outcome) / 1e12:.0f}",
                f"{plans.mfu(outcome):.1%}",
                f"{amount(outcome.memory.total)}: {parts}",
            ]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def published_table(runs: Sequence[Run], predict: Predict, fitted: bool) -> str:
    """A row for each run, and the errors in the median."""
    lines = ["| run | GPUs | pp x dp x tp | v | rows | published | predicted | error | memory | |", "|---" * 10 + "|"]
    errors = []
    for number, run in enumerate(runs):
        flops, outcome = predict(run)
        errors.append(flops / run.achieved - 1)
        of_fit = fitted and number in range(*FITTED.indices(len(runs)))
        one = outcome.candidate
        cells = [
            run.name,
            f"{run.devices:,}",
            f"{run.pp} x {run.dp} x {run.tp}",
            one.stages_per_rank,
            one.rows,
            f"{run.achieved:g}",
            f"{flops:.1f}",
            f"{errors[-1]:+.1%}",
            amount(outcome.memory.total),
            "fitted" if of_fit else "held out",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    held_out = [abs(error) for number, error in enumerate(errors) if not fitted or number % FITTED.step]
    lines.append("")
    lines.append(
        f"Held-out rows: median error {statistics.median(held_out):.1%}, largest {max(held_out):.1%}. "
        f"All rows: median {statistics.median(map(abs, errors)):.1%}, largest {max(map(abs, errors)):.1%}."
    )
    return "\n".join(lines)


def tables(with_plans: bool = True) -> dict[str, str]:
    """The tables of the page, by the name of their place."""
    found = {
        "sc21": published_table(SC21, published_runs.sc21, fitted=True),
        "h100": published_table(H100, published_runs.h100, fitted=True),
        "llama3": published_table(LLAMA3, published_runs.llama3, fitted=False),
        "llama3-in-memory": published_table(LLAMA3, published_runs.llama3_in_memory, fitted=False),
    }
    return found | ({"plans": plans_table([plans_of(devices) for devices in DEVICES])} if with_plans else {})


def written(page: str, found: dict[str, str]) -> str:
    """The page with each table at its place."""
    for name, table in found.items():
        place = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page = place.sub(lambda match, text=table: f"{match[1]}\n{text}\n\n{match[2]}", page)  # type: ignore[misc]
    return page


def main() -> None:
    start, cpu = time.monotonic(), time.process_time()
    found = tables()
    if "--write" in sys.argv[1:]:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
    for name, table in found.items():
        print(f"{name}\n\n{table}\n")
    print(f"{time.monotonic() - start:.1f} s, {time.process_time() - cpu:.1f} s of them of one core")


if __name__ == "__main__":
    main()
