"""split=balanced against split=modules with equal numbers of modules, on a GPT with a large vocabulary.

    python benchmarks/balanced.py            about two minutes

Every round runs all splits in turn, on virtual ranks (each stage timed alone on this machine, messages of 0 predicted).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

MODEL = ["model=gpt", "model.vocab_size=4096", "model.width=64", "model.depth=8", "stages=4", "microbatches=8"]
RUN = ["launch=virtual", "steps=6", "record_steps=4", "verify=false"]
SPLITS = {
    "modules, dealt evenly": ["split=modules"],
    "balanced by parameters": ["split=balanced", "split.by=parameters"],
    "balanced by flops": ["split=balanced", "split.by=flops"],
    "balanced by time": ["split=balanced", "split.by=time", "split.repeats=9"],
}
ROUNDS = 5


def main() -> None:
    found: dict[str, list[tuple[float, list[float]]]] = {name: [] for name in SPLITS}
    with tempfile.TemporaryDirectory() as scratch:
        for turn in range(ROUNDS):
            for at, (name, words) in enumerate(SPLITS.items()):
                folder = Path(scratch) / f"{turn}-{at}"
                command = [sys.executable, "-m", "pipezoo", *MODEL, *RUN, *words, f"hydra.run.dir={folder}"]
                subprocess.run(command, check=True, capture_output=True)
                result = json.loads((folder / "result.json").read_text())
                stages = result["prediction"]["cost"]["stages"]
                found[name].append((result["step_seconds"]["median"], [_stage(entry) for entry in stages]))
    base = statistics.median(step for step, _ in found["modules, dealt evenly"])
    print("| split | step, median of rounds (lowest) | times as fast | milliseconds of each stage for a microbatch |")
    print("|---|---|---|---|")
    for name, runs in found.items():
        step = statistics.median(step for step, _ in runs)
        columns = zip(*(stages for _, stages in runs), strict=True)
        stages = ", ".join(f"{1e3 * statistics.median(column):.1f}" for column in columns)
        lowest = min(step for step, _ in runs)
        print(f"| {name} | {1e3 * step:.0f} ms ({1e3 * lowest:.0f}) | {base / step:.2f} | {stages} |")


def _stage(entry: dict[str, float]) -> float:
    return entry.get("F", 0.0) + entry.get("B", entry.get("I", 0.0) + entry.get("W", 0.0))


if __name__ == "__main__":
    main()
