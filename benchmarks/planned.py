"""Plans that are run: the winner of ``task=plan cost=measured`` against the best fixed schedule, and both predictions.

    python -m benchmarks.planned                     all rows, about half an hour
    python -m benchmarks.planned --rows 2 --turns 5  those of two ranks

Every row measures the costs, plans, and trains the winner and the two best other fixed schedules that fit into the
same memory, in turns: with one process a rank at 2 ranks, with virtual ranks at 4 and 8. Medians over the turns of the
runs' medians; the last columns say how many times as fast as the first of the fixed ones an order is: the median of the
ratios within a turn, with their middle half. Each winner is verified, too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROWS = [  # ranks, how they are launched, memory, model and sizes
    (2, "processes", "", "model=multi_mlp model.d_hid=1024 model.n_layers=4 microbatches=8 batch_size=512"),
    (2, "processes", "9.5MB", "model=multi_mlp model.d_hid=1024 model.n_layers=4 microbatches=8 batch_size=512"),
    (2, "processes", "", "model=gpt model.depth=8 model.width=128 microbatches=8"),
    (4, "virtual", "", "model=gpt model.depth=10 microbatches=16"),
    (4, "virtual", "14MB", "model=gpt model.depth=10 microbatches=16"),
    (8, "virtual", "", "model=gpt model.depth=14 microbatches=16"),
    (8, "virtual", "9MB", "model=gpt model.depth=14 microbatches=16"),
]
HOP = ["launch.latency=1e-4", "launch.bandwidth=2e9"]  # of virtual ranks
STEPS = 9


def pipezoo(words: list[str], folder: Path) -> dict[str, Any]:
    """Run a command; its ``result.json``."""
    command = [sys.executable, "-m", "pipezoo", *words, f"hydra.run.dir={folder}"]
    ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)}\n{ended.stderr}")
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


class Row:
    """One plan, and the orders that it is held against."""

    def __init__(self, row: tuple[int, str, str, str], time_limit_s: float, folder: Path) -> None:
        self.ranks, launch, self.memory, model = row
        self.folder = folder
        self.words = [*model.split(), f"launch={launch}", *(HOP if launch == "virtual" else [])]
        plan = [
            "task=plan",
            f"ranks={self.ranks}",
            "cost=measured",
            "cost.steps=5",
            f"plan.time_limit_s={time_limit_s}",
        ]
        memory = [f"plan.memory={self.memory}"] if self.memory else []
        self.plan = pipezoo([*plan, *memory, *self.words], folder / "plan")
        table = self.plan["plans"]
        others = [
            entry for entry in table[1:] if entry["made"] == "fixed" and entry["schedule"] != table[0]["schedule"]
        ]
        self.best_fixed = others[0]
        self.orders = {"winner": table[0]} | {entry["schedule"]: entry for entry in reversed(others[:2])}

    def train(self, name: str, turn: int, verify: bool = False) -> float:
        """The step time of one order, in seconds."""
        entry = self.orders[name]
        stages = entry["stages_per_rank"] * self.ranks
        sizes = [f"stages={stages}", f"ranks={self.ranks}", f"verify={str(verify).lower()}", f"steps={STEPS}"]
        order = [f"schedule={name}"]
        if name == "winner":
            order = ["schedule=csv", f"schedule.file={self.folder / 'plan' / 'schedule.csv'}"]
        result = pipezoo([*order, *sizes, *self.words], self.folder / f"{name}-{turn}")
        if verify and result["verified"] not in ("exact", "close"):
            raise SystemExit(f"{name}: verified {result['verified']}")
        return float(result["step_seconds"]["median"])


def measure(row: Row, turns: int) -> None:
    """Print a line of the table for every order."""
    row.train("winner", -1, verify=True)
    took: dict[str, list[float]] = {name: [] for name in row.orders}
    for turn in range(turns):
        for name in list(took)[:: 1 if turn % 2 else -1]:
            took[name].append(row.train(name, turn))
    for name, entry in row.orders.items():
        ratios = [fixed / own for own, fixed in zip(took[name], took[row.best_fixed["schedule"]], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4) if turns > 1 else ratios * 3
        label = f"**{entry['schedule']}**" if name == "winner" else entry["schedule"]
        print(
            f"| {row.ranks} {row.words[0].partition('=')[2]} | {row.memory or 'any'} | {label} "
            f"| {entry['step_seconds'] * 1e3:.1f} ms | {statistics.median(took[name]) * 1e3:.1f} ms "
            f"| {row.best_fixed['step_seconds'] / entry['step_seconds']:.3f} "
            f"| {middle:.3f} ({low:.3f} .. {high:.3f}) |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", help="numbers of ranks; default: all rows")
    parser.add_argument("--turns", type=int, default=7, help="runs of each order, in turns")
    parser.add_argument("--budget", type=float, default=5.0, help="seconds of search")
    arguments = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} at the start")
    print("| ranks, model | memory | order | predicted | measured | times as fast: predicted | measured |")
    print("|---|---|---|---|---|---|---|")
    for row in ROWS:
        if arguments.rows and row[0] not in arguments.rows:
            continue
        with tempfile.TemporaryDirectory() as folder:
            measure(Row(row, arguments.time_limit_s, Path(folder)), arguments.turns)
    print(f"load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
