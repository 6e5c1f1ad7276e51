"""What a bubble is made of, told and measured: emulated stages whose costs are known, so that each cause is.

    python -m benchmarks.bubble [--repeats 3]

Every row simulates a pipeline and then trains it with ``launch.emulate``: real processes and messages, each action as
slow as the costs say. The causes that the simulator tells are compared with those found in the measured timeline.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from pipezoo.results.bubble import WORDS

EVEN = {"F": 0.04, "I": 0.04, "W": 0.04}
SLOW = EVEN | {"W": 0.08}
ROWS: dict[str, tuple[str, Any]] = {
    "an order with a gap": ("ranks=3 schedule=1f1b microbatches=6", {"stages": EVEN}),
    "an order without one": ("ranks=2 schedule=zbv microbatches=8", {"stages": EVEN}),
    "one slow stage": ("ranks=3 schedule=1f1b microbatches=6", {"stages": [EVEN, SLOW, EVEN]}),
    "slow messages": ("ranks=3 schedule=1f1b microbatches=6", {"stages": EVEN, "p2p": {"latency": 0.024}}),
    "all of them": (
        "ranks=2 stages=4 schedule=interleaved_zero_bubble microbatches=4",
        {"stages": [EVEN, SLOW, EVEN, EVEN], "p2p": {"latency": 0.016}},
    ),
}
TRAIN = ["model=multi_mlp", "model.d_hid=16", "launch.emulate=true", "steps=4", "verify=false"]


def causes(words: list[str], cost: Any, source: str) -> dict[str, float]:
    """Run once; the bubble of the timeline and its causes, as shares."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "cost.json").write_text(json.dumps(cost))
        words = [*words, "cost=file", f"cost.file={folder}/cost.json", f"hydra.run.dir={folder}/run"]
        command = [sys.executable, "-m", "pipezoo", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        bubble = json.loads((Path(folder) / "run" / "result.json").read_text())["bubble"][source]
    return {"bubble": bubble["makespan"]} | {name: bubble["causes"][name] for name in WORDS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each row; medians are printed")
    repeats = parser.parse_args().repeats
    names = ["bubble", *WORDS]
    print(f"| case | {' | '.join(WORDS.get(name, name) for name in names)} | largest difference |")
    print(f"|---|{'---|' * (len(names) + 1)}")
    for title, (words, cost) in ROWS.items():
        told = causes(["task=simulate", *words.split()], cost, "predicted")
        runs = [causes([*TRAIN, *words.split()], cost, "measured") for _ in range(repeats)]
        seen = {name: statistics.median(run[name] for run in runs) for name in names}
        cells = [f"{100 * told[name]:.1f} / {100 * seen[name]:.1f}" for name in names]
        largest = max(abs(told[name] - seen[name]) for name in names)
        print(f"| {title} | {' | '.join(cells)} | {100 * largest:.1f} |", flush=True)


if __name__ == "__main__":
    main()
