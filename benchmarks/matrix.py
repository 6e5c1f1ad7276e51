"""Every seed model by every splitter by torch's seven schedules: which pipelines there are, and that each is right.

    python -m benchmarks.matrix                     all cells, printed and written to docs/matrix.md; four minutes
    python -m benchmarks.matrix --only gpt zbv      the cells that have these words among theirs; nothing is written

A cell is one run of ``python -m pipezoo`` with its words, in a process forked from one that has imported torch. A cell
that does not apply shows the error line of that very command. Exit code 3 if a cell that applies is not verified.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipezoo.cli.run import Request
from pipezoo.cli.sweep_worker import run_in_worker
from pipezoo.config.compose import compose, resolved_config
from pipezoo.config.resolve import ResolvedConfig
from pipezoo.errors import ConfigError, VerificationError
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.results.run_dir import read_result
from pipezoo.supervisor.processes import exit_now

PAGE = Path(__file__).resolve().parent.parent / "docs" / "matrix.md"
SCHEDULES = ("gpipe", "1f1b", "interleaved_1f1b", "looped_bfs", "interleaved_zero_bubble", "zbv", "dualpipev")
SPLITTERS = ("marked", "annotated", "modules")
FOUR = ("stages=4", "model.d_hid=32")
SMALL_GPT = ("stages=4", "model.width=32", "model.context=16")
ROWS = {  # what the table calls a model, and the words that choose it
    "example_code": ("model=example_code", *FOUR),
    "model_with_kwargs": ("model=model_with_kwargs", *FOUR),
    "model_with_param_alias (tied)": ("model=model_with_param_alias", "stages=2", "model.d_hid=32"),
    "multi_mlp": ("model=multi_mlp", *FOUR),
    "multi_mlp_kwargs": ("model=multi_mlp_kwargs", *FOUR),
    "multi_mlp_with_dw": ("model=multi_mlp_with_dw", *FOUR),
    "multi_mlp_with_dw, weight_grad=module": ("model=multi_mlp_with_dw", *FOUR, "weight_grad=module"),
    "gpt": ("model=gpt", *SMALL_GPT),
    "gpt (tied)": ("model=gpt", *SMALL_GPT, "model.tied=true"),
    "unet": ("model=unet", "stages=4", "data.size=8"),
}
CUTS = {  # the splitters that fit; everywhere else a refusal is what is expected
    "marked": ("example_code", "model_with_kwargs", "model_with_param_alias (tied)"),
    "annotated": ("multi_mlp", "multi_mlp_kwargs", "multi_mlp_with_dw", "gpt", "gpt (tied)", "unet"),
    "modules": (
        "multi_mlp",
        "multi_mlp_kwargs",
        "multi_mlp_with_dw",
        "multi_mlp_with_dw, weight_grad=module",
        "gpt",
        "gpt (tied)",
    ),
}
STEPS = "steps=3"
TIED = 1e-6  # largest relative difference of tied weights, whose gradients are added up in another order

INTRODUCTION = """\
# Which pipelines there are

Written by `python -m benchmarks.matrix`, which trained each cell for three steps on real processes (4 stages; 2 of
`model_with_param_alias`) and held it against one device. `exact`: every loss, gradient and parameter equal bit for bit.
`close`: tied weights, whose gradient is added up in another order; beside it the largest relative difference, at most
1e-6. A number: the cell does not apply, for the reason below its table, which is the program's own error line.
"""


@dataclass(frozen=True)
class Cell:
    """One pipeline, and how its run ended."""

    words: tuple[str, ...]
    applies: bool
    result: dict[str, Any]

    @property
    def is_right(self) -> bool:
        """Verified as it should be where it applies, refused before anything was started where it does not."""
        if not self.applies:
            return self.result.get("exit_code") == ConfigError.exit_code
        return is_verified(self.result, any("tied" in word or "alias" in word for word in self.words))

    @property
    def text(self) -> str:
        """What stands in the table; empty where a reason has to."""
        verified, difference = self.result.get("verified"), self.result.get("max_relative_difference")
        if verified == "close":
            return f"close {difference:.0e}"
        return verified if verified == "exact" else ""


def is_verified(result: dict[str, Any], tied: bool) -> bool:
    """Whether a run's result is exact, or, with tied weights, close to within ``TIED``."""
    if result.get("status") != "ok":
        return False
    return result["verified"] == "exact" or (tied and result["max_relative_difference"] <= TIED)


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


def words_of(row: str, splitter: str, schedule: str) -> tuple[str, ...]:
    return (*ROWS[row], f"split={splitter}", f"schedule={schedule}", STEPS)


def all_cells(only: Sequence[str], folder: Path) -> Iterator[tuple[str, str, str, Cell]]:
    """Run the cells that have each word of ``only`` as a value, and yield them with their places."""
    for splitter in SPLITTERS:
        for row in ROWS:
            for schedule in SCHEDULES:
                words = words_of(row, splitter, schedule)
                if all(any(name in word.split("=") for word in words) for name in only):
                    result = run_cell(words, folder / f"{splitter}-{row}-{schedule}")
                    yield splitter, row, schedule, Cell(words, row in CUTS[splitter], result)


def table(splitter: str, cells: dict[tuple[str, str], Cell]) -> str:
    """The table of one splitter, and the numbered reasons under it."""
    reasons: list[str] = []
    schedules = [schedule for schedule in SCHEDULES if any(schedule == ran for _, ran in cells)]
    lines = [f"## split={splitter}", "", "| | " + " | ".join(schedules) + " |", "|---" * (len(schedules) + 1) + "|"]
    for row in ROWS:
        texts = []
        for schedule in schedules:
            cell = cells.get((row, schedule))
            if cell is not None and not cell.text:
                reason = str(cell.result.get("error") or cell.result.get("status"))
                reasons += [] if reason in reasons else [reason]
                texts.append(str(reasons.index(reason) + 1))
            else:
                texts.append(cell.text if cell else "")
        if any(texts):
            lines.append(f"| {row} | " + " | ".join(texts) + " |")
    notes = [f"{number}. `{reason}`" for number, reason in enumerate(reasons, start=1)]
    return "\n".join([*lines, "", *notes, ""]).rstrip() + "\n"


def count(cells: Sequence[Cell]) -> str:
    exact, close = (sum(cell.text.startswith(word) for cell in cells) for word in ("exact", "close"))
    refused = sum(not cell.applies for cell in cells)
    wrong = sum(not cell.is_right for cell in cells)
    end = f", {wrong} WRONG" if wrong else ""
    return f"{len(cells)} cells: {exact} exact, {close} close, {refused} do not apply{end}."


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.matrix", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=[], metavar="WORD", help="values that a cell must have: gpt zbv")
    only = parser.parse_args(arguments).only
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="pipezoo-matrix-"))
    cells: dict[str, dict[tuple[str, str], Cell]] = {splitter: {} for splitter in SPLITTERS}
    try:
        for splitter, row, schedule, cell in all_cells(only, folder):
            cells[splitter][row, schedule] = cell
            if sys.stderr.isatty():
                print(f"\r\033[K{splitter} {row} {schedule} {cell.text}", end="", file=sys.stderr, flush=True)
            if not cell.is_right:
                print(f"wrong: python -m pipezoo {' '.join(cell.words)}: {cell.result}", file=sys.stderr)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    ran = [cell for of_splitter in cells.values() for cell in of_splitter.values()]
    tables = [table(splitter, of_splitter) for splitter, of_splitter in cells.items() if of_splitter]
    page = "\n".join([INTRODUCTION, count(ran) + "\n", *tables])
    print(page)
    print(f"{time.monotonic() - began:.0f} s")
    if not only:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page, encoding="utf-8")
    return 0 if ran and all(cell.is_right for cell in ran) else VerificationError.exit_code


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    exit_now(main())  # torch takes its time to be torn down
