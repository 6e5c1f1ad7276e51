"""A pipeline as another trainer has to hear of it, and what one was told: the contract of ``exports/``.

Blueprint    schedule, modules of every stage  --exports/torchtitan.py-->  Export    files, and what to know of them
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipezoo.schedule.schedule import Schedule


@dataclass(frozen=True)
class ExportSpec:
    """All that is known of a pipeline before it runs.

    Args:
        schedule: the order.
        rows: of a microbatch; None where no batch was made.
        modules: for each stage the names of the model's modules that it runs, in their order; None: unknown.
        unnamed: why they are unknown, in one line; "" where they are known.
        trains: whether a training follows, whose weights can be had.
        averages: whether it keeps a moving average of them.
        blocks: names of those modules that are equal blocks in a row, as the layers of a transformer; may be empty.
    """

    schedule: Schedule
    rows: int | None = None
    modules: tuple[tuple[str, ...], ...] | None = None
    unnamed: str = ""
    blocks: tuple[str, ...] = ()
    trains: bool = False
    averages: bool = False

    @property
    def stages_per_rank(self) -> int | None:
        """None where the stages are neither placed as a loop nor as a V."""
        return self.schedule.num_stages // self.schedule.num_ranks if self.is_loop or self.is_v else None

    @property
    def is_loop(self) -> bool:
        """Whether stage ``s`` is on rank ``s % num_ranks``, as many on every rank."""
        size = self.schedule.num_ranks
        turns, rest = divmod(self.schedule.num_stages, size)
        return not rest and self.schedule.stage_to_rank == tuple(range(size)) * turns

    @property
    def is_v(self) -> bool:
        """Whether rank ``r`` has the stages ``r`` and ``2 * num_ranks - 1 - r``."""
        down = tuple(range(self.schedule.num_ranks))
        return self.schedule.stage_to_rank == down + down[::-1]

    def sizes(self) -> str:
        """``1f1b: 4 stages on 2 ranks, 8 microbatches``."""
        schedule = self.schedule
        stages, ranks = _count(schedule.num_stages, "stage"), _count(schedule.num_ranks, "rank")
        return f"{schedule.name}: {stages} on {ranks}, {_count(schedule.num_microbatches, 'microbatch', 'es')}"


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{'' if number == 1 else plural}"


@dataclass(frozen=True)
class Export:
    """``files``: text by name. ``notes``: what the reader should know of them, a line each. ``weights``: the file that
    gets the trained weights, or "". ``averages``: whether it gets the moving averages of what learns."""

    files: Mapping[str, str]
    notes: tuple[str, ...] = ()
    weights: str = ""
    averages: bool = False
