"""Which single change of a run is predicted to save most, and by how much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pipezoo.errors import ConfigError
from pipezoo.explain.alternatives import Alternative, Measured
from pipezoo.explain.changes import command, of_alternative
from pipezoo.results.run import Run
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules import ZOO
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.simulate import simulate


@dataclass(frozen=True)
class Change:
    """A change with its predicted gain.

    Args:
        words: what changes, in words that end a sentence: ``schedule=zbv``.
        saved: share of a step, or of the time for as many rows, that it saves; in (0, 1).
        command: that runs it.
    """

    words: str
    saved: float
    command: str


def changes(run: Run, schedule: Schedule, measured: Measured, found: list[Alternative]) -> list[Change]:
    """The changes that are predicted to save more than the error bar, the best first."""
    tried = (
        _other_order(run, found, measured),
        _even_stages(run, schedule, measured),
        _more_microbatches(run, schedule, measured),
    )
    worth = [change for change in tried if change is not None and change.saved > measured.error]
    return sorted(worth, key=lambda change: -change.saved)


def _other_order(run: Run, found: list[Alternative], measured: Measured) -> Change | None:
    sure = [one for one in found if not one.assumed]
    if not sure:
        return None
    words = f"schedule={sure[0].choice}" if sure[0].choice else "the same order with its weight gradients moved"
    if sure[0].num_stages != run.result.get("num_stages"):
        words += f" with stages={sure[0].num_stages}"
    return Change(words, 1.0 - sure[0].step / measured.step, of_alternative(run, sure[0]))


def _even_stages(run: Run, schedule: Schedule, measured: Measured) -> Change | None:
    """Stages that all take the mean; a model that has no finer places to cut gets less of it."""
    cost = measured.cost.for_stages(schedule.num_stages)
    if run.result.get("split") == "balanced" or schedule.num_stages == 1:
        return None
    seconds = np.broadcast_to(cost.seconds.mean(axis=0), cost.seconds.shape)
    saved = _saved(schedule, replace(cost, seconds=seconds), measured)
    return Change("split=balanced split.by=time", saved, command(run, "split=balanced", "split.by=time"))


def _more_microbatches(run: Run, schedule: Schedule, measured: Measured) -> Change | None:
    """Twice as many microbatches of the same size: the same work for as many rows, with half the fill and drain."""
    choice, twice = str(run.result.get("schedule")), 2 * schedule.num_microbatches
    rows = run.result.get("batch_size")
    if choice not in ZOO.names() or not isinstance(rows, int):
        return None
    stages_per_rank = schedule.num_stages // schedule.num_ranks
    larger = _made(lambda: ZOO[choice](schedule.num_ranks, twice, stages_per_rank=stages_per_rank).compute_only())
    if larger is None or larger.num_actions != 2 * schedule.num_actions:
        return None
    saved = 1.0 - simulate(larger, measured.cost).step / (2 * measured.predicted)
    words = f"microbatches={twice} with batch_size={2 * rows}"
    return Change(words, saved, command(run, f"microbatches={twice}", f"batch_size={2 * rows}"))


def _saved(schedule: Schedule, cost: Cost, measured: Measured) -> float:
    return 1.0 - simulate(schedule, cost).step / measured.predicted


def _made(make: Callable[[], Schedule]) -> Schedule | None:
    try:
        return make()
    except (ValueError, ConfigError):
        return None
