"""Every mesh by every schedule by three models: what the verdict of each is.

    python -m benchmarks.mesh_matrix                  all cells, printed and written into docs/mesh.md; rows of models
                                                      whose library is not installed (*) are left out
    python -m benchmarks.mesh_matrix --only gpt zbv   the cells that have these words; nothing is written

A cell is a run of ``python -m pipezoo`` with its words, on real processes. Exit code 3 if one of them has not the
verdict that its mesh promises: *exact* where gradients are added in order, *close* where layers are cut.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.matrix import run_cell
from pipezoo.errors import VerificationError
from pipezoo.supervisor.processes import exit_now

PAGE = Path(__file__).resolve().parent.parent / "docs" / "mesh.md"
BEGIN, END = "<!-- begin: python -m benchmarks.mesh_matrix -->", "<!-- end -->"
SMALL = ("model.width=16", "model.context=8")
MODELS = {
    "gpt": ("model=gpt", *SMALL),
    "multi_mlp": ("model=multi_mlp", "model.d_hid=16"),
    "hf_causal_lm (Llama) *": ("model=hf_causal_lm", *SMALL),
}
SCHEDULES = {"1f1b": 1, "interleaved_1f1b": 2, "zbv": 2}  # stages of a rank
MESHES = {
    "dp 2": ("ranks=1", "mesh.dp=2"),
    "dp 3": ("ranks=1", "mesh.dp=3"),
    "fsdp 2": ("ranks=1", "mesh.dp=2", "mesh.dp_with=fsdp"),
    "tp 2": ("ranks=1", "mesh.tp=2"),
    "pp 2 x dp 2": ("ranks=2", "mesh.dp=2"),
    "pp 2 x fsdp 2": ("ranks=2", "mesh.dp=2", "mesh.dp_with=fsdp"),
    "pp 2 x tp 2": ("ranks=2", "mesh.tp=2"),
}
STEPS = ("steps=2", "microbatches=2", "optimizer=sgd_momentum", "optimizer.clip=1.0", "launch.first_step_timeout=300")
CLOSE = 1e-6  # the largest relative difference that another order of sums makes here

Cells = dict[tuple[str, str, str], dict[str, Any]]


def words_of(model: str, schedule: str, mesh: str) -> tuple[str, ...]:
    """The words of a cell."""
    ranks = 2 if "pp 2" in mesh else 1
    stages = f"stages={ranks * SCHEDULES[schedule]}"
    return (*MODELS[model], f"schedule={schedule}", stages, *MESHES[mesh], *STEPS)


def is_right(mesh: str, result: dict[str, Any]) -> bool:
    """Whether a cell has the verdict that its mesh promises."""
    if "tp" in mesh:
        return result.get("verified") == "close" and result["max_relative_difference"] <= CLOSE
    return result.get("verified") == "exact"


def text_of(result: dict[str, Any]) -> str:
    """``exact``, ``close 3e-07``, or the exit code."""
    verified = result.get("verified")
    if verified == "close":
        return f"close {result['max_relative_difference']:.0e}"
    return "exact" if verified == "exact" else f"exit {result.get('exit_code')}"


def table(cells: Cells) -> str:
    """A row for each model and schedule, a column for each mesh."""
    meshes = [mesh for mesh in MESHES if any(mesh == at for *_, at in cells)]
    lines = [f"| | {' | '.join(meshes)} |", "|---" * (len(meshes) + 1) + "|"]
    for model, schedule in dict.fromkeys((model, schedule) for model, schedule, _ in cells):
        found = [cells.get((model, schedule, mesh)) for mesh in meshes]
        lines.append(f"| {model}, {schedule} | {' | '.join('' if c is None else text_of(c) for c in found)} |")
    return "\n".join(lines)


def all_cells(only: Sequence[str]) -> Cells:
    """Run the cells that have each word of ``only`` as a value, or in the name of their model or mesh."""
    cells: Cells = {}
    folder = Path(tempfile.mkdtemp(prefix="pipezoo-mesh-"))
    try:
        for number, (model, schedule, mesh) in enumerate(product(MODELS, SCHEDULES, MESHES)):
            names = {model, schedule, mesh, *model.split(), *mesh.split()}
            is_there = "*" not in names or importlib.util.find_spec("transformers") is not None
            if is_there and all(word in names for word in only):
                if sys.stderr.isatty():
                    print(f"\r\033[K{model}, {schedule}, {mesh}", end="", file=sys.stderr)
                cells[model, schedule, mesh] = run_cell(words_of(model, schedule, mesh), folder / str(number))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return cells


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.mesh_matrix", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=[], metavar="WORD", help="what a cell must have: gpt zbv 'tp 2'")
    only = parser.parse_args(arguments).only
    began = time.monotonic()
    cells = all_cells(only)
    print(f"\n{table(cells)}\n{time.monotonic() - began:.0f} s")
    wrong = {at: cell for at, cell in cells.items() if not is_right(at[-1], cell)}
    for at, cell in wrong.items():
        print(f"wrong: python -m pipezoo {' '.join(words_of(*at))}: {cell.get('error')}", file=sys.stderr)
    if not wrong and len(cells) == len(MODELS) * len(SCHEDULES) * len(MESHES):
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{table(cells)}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    return 0 if cells and not wrong else VerificationError.exit_code


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    exit_now(main())
