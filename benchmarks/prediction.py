"""How well the step time of two real ranks is predicted from what the run itself measured of its stages.

    python -m benchmarks.prediction [--repeats 3]

Every row trains a pipeline of two processes and prints its measured step time, the simulator's from the costs of the
run's own actions, its p2p messages and the time between actions, and the error of the prediction. Stages take 5 ms and
more for a microbatch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

COMMON = ["task=train", "verify=false", "steps=9", "ranks=2", "model=multi_mlp"]
ROWS = [
    "schedule=gpipe microbatches=4",
    "schedule=gpipe microbatches=8",
    "schedule=1f1b microbatches=4",
    "schedule=1f1b microbatches=8",
    "schedule=1f1b microbatches=16",
    "schedule=interleaved_1f1b microbatches=4",
    "schedule=interleaved_1f1b microbatches=8",
    "schedule=looped_bfs microbatches=8",
    "schedule=interleaved_zero_bubble microbatches=8",
    "schedule=zb_h1 microbatches=8",
    "schedule=zbv microbatches=4",
    "schedule=zbv microbatches=8",
    "schedule=dualpipev microbatches=8",
]
WIDTH, ROWS_PER_MICROBATCH = 1024, 64


def measure(words: str) -> dict[str, float]:
    """Train once; step time in seconds, measured and predicted, and the median time of a forward."""
    microbatches = int(words.rpartition("=")[2])
    with tempfile.TemporaryDirectory() as folder:
        sizes = [
            f"model.d_hid={WIDTH}",
            f"batch_size={microbatches * ROWS_PER_MICROBATCH}",
            f"hydra.run.dir={folder}/run",
        ]
        command = [sys.executable, "-m", "pipezoo", *COMMON, *words.split(), *sizes]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        result = json.loads((Path(folder) / "run" / "result.json").read_text())
    return {
        "measured": result["step_seconds"]["median"],
        "predicted": result["prediction"]["step_seconds"],
        "error": result["prediction"]["step_error"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each row; medians are printed")
    repeats = parser.parse_args().repeats
    runs: dict[str, list[dict[str, float]]] = {words: [] for words in ROWS}
    for _ in range(repeats):
        for words in ROWS:
            runs[words].append(measure(words))
    print("| configuration | measured step | predicted | error |")
    print("|---|---|---|---|")
    errors = []
    for words, found in runs.items():
        middle = {key: statistics.median(run[key] for run in found) for key in found[0]}
        errors.append(middle["error"])
        times = " | ".join(f"{middle[key] * 1e3:.1f} ms" for key in ("measured", "predicted"))
        print(f"| {words} | {times} | {middle['error']:+.1%} |")
    absolute = [abs(error) for error in errors]
    print(f"\nMedian of the absolute errors: {statistics.median(absolute):.1%}; largest: {max(absolute):.1%}.")


if __name__ == "__main__":
    main()
