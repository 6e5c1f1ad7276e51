"""``pz.compare``: runs or timelines side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipezoo.api.refusals import refusals
from pipezoo.errors import ArgumentError, ConfigError
from pipezoo.report.compare import Difference, differences, letters, to_page, to_text, together
from pipezoo.report.display import table_html
from pipezoo.report.svg import lay_out, to_svg
from pipezoo.results.run import Run, Timelines, read_run
from pipezoo.results.run_dir import write_text
from pipezoo.simulator.timeline import Timeline

WIDTH = 900  # of a picture in a notebook
TEXT_WIDTH = 100


@dataclass(frozen=True, repr=False)
class Comparison:
    """Two or more runs, called A, B, C ...

    Args:
        runs: what is compared; a timeline is a run of which nothing else is known.
    """

    runs: Sequence[Run]

    @property
    def differences(self) -> dict[str, list[Difference]]:
        """What differs, under ``config``, ``result`` and ``timeline``: a name, and its text in each run."""
        return differences(self.runs)

    def save(self, path: str | Path) -> Path:
        """Write ``.html``, a page to zoom in, or ``.svg``, the timelines on one axis.

        Raises:
            ConfigError: another ending.
            OutputError: the file cannot be written.
        """
        path = Path(path)
        if path.suffix not in (".html", ".svg"):
            raise ConfigError(f"path={path}: must end in one of .html, .svg")
        write_text(path, to_page(self.runs) if path.suffix == ".html" else self._picture(1200))
        return path

    def __repr__(self) -> str:
        return f"Comparison({', '.join(run.title for run in self.runs)})"

    def __str__(self) -> str:
        """The timelines on one axis, and a line for each difference."""
        lines = [to_text(self.runs, TEXT_WIDTH)]
        for part, rows in self.differences.items():
            lines += [f"{part}: {name}: {' | '.join(values)}" for name, values in rows]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = [[name, *values] for part in self.differences.values() for name, values in part]
        return self._picture(WIDTH) + table_html(["", *letters(self.runs)], rows)

    def _picture(self, width: int) -> str:
        return to_svg(lay_out([timeline for timeline, _ in together(self.runs)], width))


def compare(*things: Run | Timeline | str | Path) -> Comparison:
    """Lay runs, folders of runs or timelines on one time axis, and list what differs.

    Raises:
        ConfigError: there are fewer than two, one is none of these, or their times count different units.

    Example:
        >>> import pipezoo as pz
        >>> a, b = (pz.simulate(pz.schedules[name](2, 4)) for name in ("1f1b", "gpipe"))
        >>> dict(pz.compare(a, b).differences["timeline"])["predicted: makespan"]
        ['15 units', '15 units']
    """
    with refusals():
        if len(things) < 2:
            raise ArgumentError("things", len(things), "comparing takes two or more")
        runs = [_run_of(thing) for thing in things]
        if len({run.unit for run in runs if run.timelines}) > 1:
            raise ArgumentError("things", [run.unit for run in runs], "seconds and units have no axis in common")
        return Comparison(runs)


def _run_of(thing: object) -> Run:
    if isinstance(thing, Run):
        return thing
    if isinstance(thing, Timeline):
        schedule = getattr(thing, "schedule", None)
        named = {} if schedule is None else {"schedule": schedule.name}
        return Run(Path(), {"time_unit": thing.unit, **named}, timelines=Timelines([thing]))
    if isinstance(thing, (str, Path)):
        return read_run(thing)
    raise ArgumentError("things", thing, f"is of type {type(thing).__name__}", "a Run, its folder, a Timeline")
