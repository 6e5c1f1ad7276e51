"""A run's folder as what the explanations need: its order, what it measured, and other orders."""

from __future__ import annotations

from dataclasses import dataclass

from pipezoo.errors import ConfigError, PipezooError
from pipezoo.explain.alternatives import Alternative, Measured, alternatives
from pipezoo.results.result import Result
from pipezoo.results.run import Run
from pipezoo.results.schedule_file import schedule_file
from pipezoo.schedule.schedule import Schedule

FEW_ACTIONS = 2000  # of an order whose alternatives are found while a page is written


@dataclass(frozen=True)
class Explained:
    """A measured run with its alternatives, the fastest first."""

    result: Result
    schedule: Schedule
    measured: Measured
    found: list[Alternative]


def explained(run: Run) -> Explained:
    """Raises ConfigError where the run measured no step, or its order cannot be read."""
    result, file = Result.from_dict(run.result), schedule_file(run.folder)
    measured = Measured.of(result)
    if measured is None or file is None:
        raise ConfigError(f"folder={run.folder}: holds no measured step; task=train and task=verify measure them")
    schedule = Schedule.from_csv(file, name=str(result.schedule)).compute_only()
    return Explained(result, schedule, measured, alternatives(schedule, measured))


def quickly_explained(run: Run) -> Explained | None:
    """The same for a page: None where there is nothing to explain, or where that would take a while."""
    timeline = run.timeline("measured")
    if timeline is None or timeline.num_spans > FEW_ACTIONS:
        return None
    try:
        return explained(run)
    except (PipezooError, ValueError):
        return None
