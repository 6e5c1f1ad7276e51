"""``python -m pipezoo.explain [FOLDER]``: why a run was as fast as it was, and what would make it faster."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipezoo.explain.alternatives import Alternative, Measured
from pipezoo.explain.changes import of_alternative
from pipezoo.explain.changes_worth import changes
from pipezoo.explain.of_run import explained
from pipezoo.explain.sentences import percent, sentences
from pipezoo.results.command import exit_code_of
from pipezoo.results.newest_run import newest_run
from pipezoo.results.run import Run, read_run
from pipezoo.results.sanitize import printable
from pipezoo.results.units import bytes_text, time_text

ABOUT = "Say why a run was as fast as it was, what would make it faster, and what other orders are predicted to take."
TOP = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipezoo.explain", description=ABOUT, allow_abbrev=False)
    parser.add_argument("folder", nargs="?", type=Path, help="folder of a run; default: the newest of outputs/")
    parser.add_argument("--top", type=int, default=TOP, help=f"rows of the table of other orders; default: {TOP}")
    options = parser.parse_args(arguments)
    return exit_code_of(lambda: _print(explain(options.folder or newest_run(), options.top)))


def _print(lines: Sequence[str]) -> None:
    for line in lines:
        print(printable(line))


def explain(folder: Path, top: int = TOP) -> list[str]:
    """The lines about the run in a folder.

    Raises:
        ConfigError: there is no run in it, or one that measured no step.
    """
    run = read_run(folder)
    known = explained(run)
    worth = changes(run, known.schedule, known.measured, known.found)
    lines = [f"{run.title}: {folder}", "", *sentences(known.result, known.schedule, known.measured, worth)]
    return [*lines, "", *table(run, known.measured, known.found, top)]


def table(run: Run, measured: Measured, found: Sequence[Alternative], top: int) -> list[str]:
    """Other orders at this run's costs, the fastest first, each with the command that trains it."""
    if not found:
        return ["No other fixed schedule fits these stages, ranks and microbatches."]
    lines = [f"What if, predicted from this run's own costs; it took {time_text(measured.step)}:"]
    for one in found[:top]:
        share = f"{time_text(one.step)} +- {time_text(one.step * one.error)}"
        memory = f", {bytes_text(one.peak_memory)}" if one.peak_memory else ""
        note = f"; assumed: {one.assumed}" if one.assumed else ""
        lines.append(f"  {one.name}, {one.num_stages} stages: {share}, bubble {percent(one.bubble)}{memory}{note}")
        lines.append(f"      {of_alternative(run, one)}")
    if len(found) > top:
        lines.append(f"  and {len(found) - top} more (--top {len(found)})")
    return lines


if __name__ == "__main__":
    sys.exit(main())
