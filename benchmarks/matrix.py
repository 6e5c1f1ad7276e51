"""Every model by every splitter by every schedule: which pipelines there are, and that each is right by both executors.

    python -m benchmarks.matrix                     all cells, printed and written to docs/matrix.md
    python -m benchmarks.matrix --only gpt zbv      the cells that have these words among theirs; nothing is written

A cell is a run of ``python -m pipezoo`` with its words, on virtual ranks. A model and a splitter have a process of
their own. Exit code 3 if a cell of ``executor=native`` that applies is not verified.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import torch

import pipezoo as pz
from benchmarks.matrix_page import EXECUTORS, INTRODUCTION, SCHEDULES, Cell, Cells, count, table
from pipezoo.cli.request import Request
from pipezoo.cli.sweep_worker import run_in_worker
from pipezoo.config.compose import compose, resolved_config, trusted_by
from pipezoo.config.resolve import build, check_components
from pipezoo.config.resolved import ResolvedConfig
from pipezoo.errors import ConfigError, PipezooError, VerificationError
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.results.run_dir import RESULT, read_result, write_json
from pipezoo.supervisor.processes import exit_now
from pipezoo.tasks import train

PAGE = Path(__file__).resolve().parent.parent / "docs" / "matrix.md"
SPLITTERS = ("marked", "annotated", "modules", "balanced", "replay")
FOUR = ("stages=4", "model.d_hid=16")
SMALL_GPT = ("model=gpt", "stages=4", "model.width=16", "model.context=8")
DICTS = ("model=multi_mlp", "model._target_=benchmarks.dicts.Dicts", "trust=benchmarks")
ROWS = {  # what the table calls a model, and the words that choose it
    "example_code": ("model=example_code", *FOUR),
    "model_with_kwargs": ("model=model_with_kwargs", *FOUR),
    "model_with_param_alias (tied)": ("model=model_with_param_alias", "stages=2", "model.d_hid=16"),
    "multi_mlp": ("model=multi_mlp", *FOUR),
    "multi_mlp_kwargs": ("model=multi_mlp_kwargs", *FOUR),
    "multi_mlp_with_dw": ("model=multi_mlp_with_dw", *FOUR),
    "multi_mlp_with_dw, weight_grad=module": ("model=multi_mlp_with_dw", *FOUR, "weight_grad=module"),
    "gpt": SMALL_GPT,
    "gpt (tied)": (*SMALL_GPT, "model.tied=true"),
    "gpt (dropout)": (*SMALL_GPT, "model.dropout=0.2"),
    "unet (skips)": ("model=unet", "stages=4", "model.width=4", "model.depth=2", "data.size=8"),
    "dicts between stages": (*DICTS, *FOUR),
}
MLPS = ("multi_mlp", "multi_mlp_kwargs", "multi_mlp_with_dw")
GPTS = ("gpt", "gpt (tied)", "gpt (dropout)")
SEEDS = ("example_code", "model_with_kwargs", "model_with_param_alias (tied)")
CUTS = {  # the splitters that fit; everywhere else a refusal is what is expected
    "marked": SEEDS,
    "annotated": (*MLPS, *GPTS, "unet (skips)"),
    "modules": (*MLPS, "multi_mlp_with_dw, weight_grad=module", *GPTS, "dicts between stages"),
    "balanced": ("example_code", "multi_mlp", "gpt", "dicts between stages"),  # and others: these stand for all
    "replay": (*SEEDS[1:], *MLPS, *GPTS, "unet (skips)", "dicts between stages"),
}
STEPS = "steps=2"


def run_cell(words: Sequence[str], folder: Path, config_dir: Path | None = None) -> dict[str, Any]:
    """Run ``python -m pipezoo`` with these words in a forked process, and return its ``result.json``."""
    resolved: ResolvedConfig | ConfigError
    try:
        trust = Allowlist(folders=() if config_dir is None else (str(config_dir.absolute()),))
        resolved = resolved_config(*compose(words, config_dir), trust)
    except ConfigError as error:
        resolved = error
    run_in_worker(Request(resolved, folder), lambda line: None)
    return dict(read_result(folder))


@cache
def composed(words: tuple[str, ...]) -> ResolvedConfig:
    return resolved_config(*compose(words), trusted_by(words))


def run_here(words: Sequence[str], folder: Path) -> dict[str, Any]:
    """Run the task of these words in this process; what would stand in its ``result.json`` about its end.

    The words but for the schedule and the executor are composed once, these by themselves. Where no number of stages is
    given, a model may take it from the schedule, and all are composed together.
    """
    folder.mkdir(parents=True)
    write_json(folder / RESULT, {})
    apart = ("schedule=", "executor=") if any(word.startswith("stages=") for word in words) else ()
    chosen = dict(word.split("=") for word in words if word.startswith(apart))
    try:
        base = composed(tuple(word for word in words if word.partition("=")[0] not in chosen))
        nodes = {key: composed((f"{key}={name}",)).values[key] for key, name in chosen.items()}
        experiment = build(replace(base, values={**base.values, **nodes}, choices={**base.choices, **chosen}))
        check_components(experiment)
        result = train.run(experiment, folder, str)
    except PipezooError as error:
        result = {"status": "failed", "exit_code": error.exit_code, "error": str(error)}
    finally:
        shutil.rmtree(folder)
    return {key: result.get(key) for key in ("status", "verified", "max_relative_difference", "exit_code", "error")}


def words_of(row: str, splitter: str, schedule: str, executor: str = "native") -> tuple[str, ...]:
    return (*ROWS[row], f"split={splitter}", f"schedule={schedule}", f"executor={executor}", STEPS, "launch=virtual")


def places(only: Sequence[str]) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """The (schedule, executor) pairs of each splitter and model that have each word of ``only`` as a value."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for splitter, row in product(SPLITTERS, ROWS):
        fits = row in CUTS[splitter]
        if splitter == "balanced" and not fits and "unet" not in row:
            continue
        asked = [(name, "native") for name in pz.schedules.names()] + [(name, "torch") for name in SCHEDULES]
        for schedule, executor in asked if fits else [("1f1b", "native")]:
            words = words_of(row, splitter, schedule, executor)
            if all(any(name in word.split("=") for word in words) for name in only):
                found.setdefault((splitter, row), []).append((schedule, executor))
    return found


def run_row(splitter: str, row: str, columns: Sequence[tuple[str, str]], folder: Path) -> None:
    """Run the cells of a model and a splitter one after the other, and write down how each ended."""
    torch.set_num_threads(1)
    with (folder / f"{splitter}-{row}").open("w") as file:
        for schedule, executor in columns:
            words = words_of(row, splitter, schedule, executor)
            result = run_here(words, folder / f"{splitter}-{row}-{schedule}-{executor}")
            cell = Cell(words, row in CUTS[splitter], result)
            print(json.dumps([schedule, executor, asdict(cell)]), file=file, flush=True)


def all_cells(only: Sequence[str], folder: Path, workers: int) -> Cells:
    """Run the cells that have each word of ``only`` as a value, a process for each model and splitter."""
    for word in [f"schedule={name}" for name in pz.schedules.names()] + [f"executor={name}" for name in EXECUTORS]:
        composed((word,))  # before the processes are forked
    waiting, running = list(places(only).items()), list[int]()
    while waiting or running:
        while waiting and len(running) < workers:
            (splitter, row), columns = waiting.pop(0)
            if (pid := os.fork()) == 0:
                run_row(splitter, row, columns, folder)
                exit_now(0)
            running.append(pid)
        running.remove(os.wait()[0])
        if sys.stderr.isatty():
            print(f"\r\033[K{len(waiting) + len(running)} models and splitters left", end="", file=sys.stderr)
    cells: Cells = {}
    for splitter, row in places(only):
        for line in (folder / f"{splitter}-{row}").read_text().splitlines():
            schedule, executor, cell = json.loads(line)
            cells[splitter, row, schedule, executor] = Cell(tuple(cell["words"]), cell["applies"], cell["result"])
    return cells


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.matrix", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=[], metavar="WORD", help="values that a cell must have: gpt zbv")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="models and splitters at a time: 2")
    asked = parser.parse_args(arguments)
    only = asked.only
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="pipezoo-matrix-"))
    try:
        cells = all_cells(only, folder, asked.workers)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    tables = [table(name, cells) for name in SPLITTERS if any(name == splitter for splitter, *_ in cells)]
    page = "\n".join([INTRODUCTION, count(cells) + "\n", *tables])
    print(page)
    print(f"{time.monotonic() - began:.0f} s")
    wrong = [cell for (*_, executor), cell in cells.items() if executor == "native" and not cell.is_right]
    for cell in wrong:
        print(f"wrong: python -m pipezoo {' '.join(cell.words)}: {cell.result}", file=sys.stderr)
    if not only:
        PAGE.write_text(page, encoding="utf-8")
    return 0 if cells and not wrong else VerificationError.exit_code


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    exit_now(main())  # torch takes its time to be torn down
