"""``python -m pipezoo.report FOLDER...``: the page of a run or a sweep again, or runs compared, from files alone."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipezoo.errors import ConfigError
from pipezoo.results.command import exit_code_of
from pipezoo.results.newest_run import newest_run
from pipezoo.results.run_dir import RESULT, read_result, whole_file, write_text
from pipezoo.results.sanitize import is_terminal, printable

if TYPE_CHECKING:
    from pipezoo.results.run import Run

ABOUT = "Write the page of a run or a sweep again, or compare runs, from the files of their folders alone."
SUFFIXES = (".html", ".svg", ".png")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipezoo.report", description=ABOUT, allow_abbrev=False)
    of_what = "folder of a run or a sweep; of several runs to compare; default: the newest run of outputs/"
    parser.add_argument("folder", nargs="*", type=Path, help=of_what)
    output = (
        "file to write: .html a page, .svg or .png the timelines; default: report.html in the folder of one run or "
    )
    output += "sweep, and only text on the terminal where runs are compared"
    parser.add_argument("-o", "--output", type=Path, help=output)
    parser.add_argument("--width", type=int, help="columns of the text; default: as wide as the terminal")
    options = parser.parse_args(arguments)
    width = options.width or shutil.get_terminal_size((100, 24)).columns
    return exit_code_of(lambda: _report(options.folder or [newest_run()], options.output, width))


def _report(folders: list[Path], output: Path | None, width: int) -> None:
    if output is not None and output.suffix not in SUFFIXES:
        raise ConfigError(f"output={output}: must end in one of {', '.join(SUFFIXES)}")
    if len(folders) == 1 and _is_sweep(folders[0]):
        _print_line(_write_sweep(folders[0], output))
    elif len(folders) == 1:
        _print_line(_write_run(folders[0], output))
    else:
        _compare(folders, output, width)


def _is_sweep(folder: Path) -> bool:
    return os.path.isdir(folder) and not (folder / RESULT).exists() and any(folder.glob(f"*/{RESULT}"))


def _write_sweep(folder: Path, output: Path | None) -> Path:
    from pipezoo.report.sweep_page import sweep_page, write_sweep_report

    if output is None:
        return write_sweep_report(folder)
    if output.suffix != ".html":
        raise ConfigError(f"output={output}: a sweep is drawn as .html")
    write_text(output, sweep_page(folder))
    return output


def _write_run(folder: Path, output: Path | None) -> Path:
    read_result(folder)  # a folder that is no run is refused before the larger imports
    from pipezoo.report.html import run_page, write_report
    from pipezoo.results.run import read_run

    if output is None:
        return write_report(folder)
    run = read_run(folder)
    if output.suffix == ".html":
        write_text(output, run_page(run))
    else:
        _write_picture(output, [run])
    return output


def _compare(folders: list[Path], output: Path | None, width: int) -> None:
    from rich.console import Console

    from pipezoo.report.compare import to_page, to_tables, to_text
    from pipezoo.results.run import read_run

    runs = [read_run(folder) for folder in folders]
    colour = is_terminal(sys.stdout) and "NO_COLOR" not in os.environ
    print(to_text(runs, width, colour))
    console = Console(width=width, highlight=False)
    for table in to_tables(runs):
        print()
        console.print(table)
    if output is not None:
        if output.suffix == ".html":
            write_text(output, to_page(runs))
        else:
            _write_picture(output, runs)
        _print_line(output)


def _write_picture(output: Path, runs: list[Run]) -> None:
    from pipezoo.report.compare import together
    from pipezoo.report.svg import lay_out, to_png, to_svg

    timelines = [timeline for timeline, _ in together(runs)] if len(runs) > 1 else runs[0].timelines
    if not timelines:
        raise ConfigError(f"folder={runs[0].folder}: holds no timeline to draw")
    picture = lay_out(timelines, title=runs[0].title if len(runs) == 1 else "")
    with whole_file(output) as file:
        file.write(to_svg(picture).encode() if output.suffix == ".svg" else to_png(picture))


def _print_line(path: Path) -> None:
    print(f"wrote {printable(path)}")


if __name__ == "__main__":
    sys.exit(main())
