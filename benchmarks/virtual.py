"""What launch=virtual costs over plain gradient accumulation of the same microbatches on one device.

    python -m benchmarks.virtual [--repeats 5]

Both train the same model on the same batches with the same optimizer in one process with one thread; the plain loop
knows no stages. Runs alternate; medians of the steps' wall times, and their ratio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROWS = [  # width, rows of a microbatch, stages, microbatches
    (1024, 64, 4, 8),
    (1024, 64, 8, 8),
    (768, 40, 8, 8),
    (512, 32, 8, 16),
    (64, 4, 8, 16),
]
STEPS = 8

PLAIN = """
import json, statistics, sys, time
import torch
from pipezoo.data.regression import batches
from pipezoo.models import MultiMLP

width, rows, stages, microbatches, steps = map(int, sys.argv[1:])
torch.set_num_threads(1)
torch.manual_seed(0)
model = MultiMLP(width, stages)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
loss = torch.nn.MSELoss()
data = batches(rows * microbatches, 0, width)
seconds = []
for step in range(steps):
    began = time.perf_counter()
    (x,), _, target = data(step)
    optimizer.zero_grad()
    total = 0.0
    for x_mb, t_mb in zip(x.tensor_split(microbatches), target.tensor_split(microbatches)):
        value = loss(model(x_mb), t_mb) / microbatches
        value.backward()
        total += value.detach()
    optimizer.step()
    total.item()
    seconds.append(time.perf_counter() - began)
print(json.dumps(statistics.median(seconds[1:])))
"""


def plain(row: tuple[int, int, int, int]) -> float:
    command = [sys.executable, "-c", PLAIN, *map(str, (*row, STEPS))]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def virtual(row: tuple[int, int, int, int]) -> float:
    width, rows, stages, microbatches = row
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "launch=virtual",
            "verify=false",
            "model=multi_mlp",
            "schedule=1f1b",
            f"steps={STEPS}",
            f"model.d_hid={width}",
            f"model.n_layers={stages}",
            f"stages={stages}",
            f"microbatches={microbatches}",
            f"batch_size={rows * microbatches}",
            f"hydra.run.dir={folder}/run",
        ]
        subprocess.run([sys.executable, "-m", "pipezoo", *words], check=True, stdout=subprocess.DEVNULL)
        result = json.loads((Path(folder) / "run" / "result.json").read_text())
    return float(result["wall_step_seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="alternations; medians are printed")
    repeats = parser.parse_args().repeats
    print("| width | rows | stages | microbatches | a stage's F + B | plain step | virtual step | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for row in ROWS:
        pairs = [(plain(row), virtual(row)) for _ in range(repeats)]
        seconds, virtually = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        width, rows, stages, microbatches = row
        stage = seconds / stages / microbatches
        print(
            f"| {width} | {rows} | {stages} | {microbatches} | {stage * 1e3:.2f} ms "
            f"| {seconds * 1e3:.1f} ms | {virtually * 1e3:.1f} ms | {ratio:.3f} |"
        )


if __name__ == "__main__":
    main()
