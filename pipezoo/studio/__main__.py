"""``python -m pipezoo.studio -o studio.html``: a page on which an order is edited and played."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipezoo.errors import ConfigError
from pipezoo.report.orders import orders
from pipezoo.report.template import STUDIO, render
from pipezoo.results.command import exit_code_of
from pipezoo.results.run_dir import write_text
from pipezoo.results.sanitize import printable

ABOUT = "Write a page on which an order is edited by hand, played at once, and saved as a CSV that schedule=csv runs."


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipezoo.studio", description=ABOUT, allow_abbrev=False)
    parser.add_argument("-o", "--output", type=Path, default=Path("studio.html"), help="default: studio.html")
    options = parser.parse_args(arguments)
    return exit_code_of(lambda: _write(options.output))


def _write(output: Path) -> None:
    if output.suffix != ".html":
        raise ConfigError(f"output={output}: must end in .html")
    write_text(output, page())
    print(f"wrote {printable(output)}")


def page() -> str:
    """The page; it asks the network for nothing."""
    return render("studio.html", title="pipezoo studio", orders=orders(), scripts=STUDIO)


if __name__ == "__main__":
    sys.exit(main())
