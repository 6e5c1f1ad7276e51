"""The numbers that follow from what was asked.

asked                            derived
  ranks=2  schedule=zbv     ->   stages=4                2 stages per rank is what zbv runs
  stages=4                  ->   ranks=4                 1f1b runs 1
  stages=4 ranks=2          ->   2 stages per rank       if the schedule can
  neither                   ->   as many stages as the splitter finds in the model
  -                         ->   microbatches=8, batch_size=32 (4 rows per microbatch)

``derive`` decides what can be decided without the model, ``resolve`` the rest once the split is known. Neither needs
torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipezoo.errors import ArgumentError, ConfigError
from pipezoo.experiment.component import Component
from pipezoo.experiment.experiment import COUNTS, Experiment
from pipezoo.experiment.memory_limit import check_schedule_fits
from pipezoo.schedule.schedule import Schedule

MICROBATCHES = 8
ROWS_PER_MICROBATCH = 4


@dataclass(frozen=True)
class Asked:
    """What is known before the model is built.

    Args:
        num_stages: how many stages to cut; None: as many as the splitter finds.
        num_slices: microbatches of the whole batch, over all replicas.
        because: what asked for that number, as the user typed it, like ``ranks=2``; "" where nothing did.
        schedule: the schedule where it says all numbers itself (a file), else None.
        lines: what was derived, in words.
        batch_lines: the same of the batch, which a task without data does not have.
    """

    num_stages: int | None
    because: str
    num_microbatches: int
    num_slices: int
    batch_size: int
    schedule: Schedule | None
    lines: tuple[str, ...]
    batch_lines: tuple[str, ...]

    @property
    def rows(self) -> int:
        """Rows of one microbatch."""
        return self.batch_size // self.num_slices


@dataclass(frozen=True)
class Sizes:
    """Every number of the pipeline, and its schedule. ``lines`` and ``batch_lines`` say what nobody typed."""

    num_stages: int
    num_ranks: int
    stages_per_rank: int
    num_microbatches: int
    num_slices: int
    batch_size: int
    schedule: Schedule
    lines: tuple[str, ...]
    batch_lines: tuple[str, ...] = ()


def derive(experiment: Experiment) -> Asked:
    """All that follows from the config without the model. Raises ConfigError for numbers that contradict each other."""
    written = None if experiment.schedule.takes("num_ranks") else experiment.schedule.once()
    if written is not None:
        _check_written(experiment, written)
    num_stages, because = asked_stages(experiment.schedule, experiment.num_stages, experiment.num_ranks, written)
    _check_told(experiment.model, num_stages, because)
    lines, batch_lines = [], []
    num_microbatches = experiment.num_microbatches
    if num_microbatches is None and written is not None:
        num_microbatches = written.num_microbatches
        lines.append(f"microbatches={num_microbatches} (the schedule's)")
    elif num_microbatches is None:
        num_microbatches, source = _microbatches(experiment, num_stages or experiment.model.stages_told)
        lines.append(f"microbatches={num_microbatches}{source}")
    batch_size, num_slices = experiment.batch_size, num_microbatches * experiment.mesh.dp
    if batch_size is None:
        batch_size = ROWS_PER_MICROBATCH * num_slices
        of_all = f" of {experiment.mesh.dp} replicas" if experiment.mesh.dp > 1 else ""
        batch_lines.append(f"batch_size={batch_size} ({ROWS_PER_MICROBATCH} rows per microbatch{of_all})")
    _check_divides(batch_size, num_microbatches, experiment.mesh.dp)
    numbers = num_microbatches, num_slices, batch_size
    return Asked(num_stages, because, *numbers, written, tuple(lines), tuple(batch_lines))


def _check_divides(batch_size: int, num_microbatches: int, dp: int) -> None:
    """Every replica has as many rows, and every microbatch of it."""
    if batch_size % dp:
        raise ConfigError(
            f"mesh.dp={dp}: batch_size={batch_size} rows are not divisible by it; valid: {_divisors(batch_size)}"
        )
    if batch_size // dp % num_microbatches:
        share = f" (of {batch_size // dp} rows for each of mesh.dp={dp} replicas)" if dp > 1 else ""
        raise ConfigError(
            f"batch_size={batch_size}: is not divisible by microbatches={num_microbatches}{share}; "
            f"valid microbatches: {_divisors(batch_size // dp)}"
        )


def default_microbatches(num_ranks: int) -> int:
    """How many microbatches nobody asked for: enough to fill the pipeline."""
    return max(MICROBATCHES, num_ranks)


def _microbatches(experiment: Experiment, num_stages: int | None) -> tuple[int, str]:
    """The default, and where it comes from; in whole rounds of the ranks where the schedule takes no others."""
    per_rank = _stages_per_rank(experiment.schedule)
    num_ranks = experiment.num_ranks or (num_stages // per_rank if num_stages and num_stages % per_rank == 0 else 0)
    count = default_microbatches(num_ranks)
    source = f" (one for each of {num_ranks} ranks)" if count > MICROBATCHES else ""
    if num_stages and num_ranks and num_stages % num_ranks == 0:
        try:
            _build_schedule(experiment, num_stages, num_ranks, num_stages // num_ranks, count)
        except ConfigError as error:
            if error.argument is not None and error.argument.name == "num_microbatches":
                count = -(-count // num_ranks) * num_ranks
                source = f" (a multiple of ranks={num_ranks})"
    return count, source


def known_ranks(experiment: Experiment) -> int | None:
    """The ranks of one pipeline, where they are known before the model is split. Raises ConfigError."""
    asked = derive(experiment)  # it refuses numbers that contradict each other, however many are given
    if experiment.num_ranks is not None or asked.num_stages is None:
        return experiment.num_ranks
    return resolve(experiment, asked, asked.num_stages).num_ranks


def resolve(experiment: Experiment, asked: Asked, num_stages: int) -> Sizes:
    """All numbers and the schedule of a pipeline of ``num_stages`` stages, the number that the splitter made.

    Raises ConfigError when that is not what was asked for, or when the schedule cannot run it.
    """
    _check_found(experiment, asked, num_stages)
    if asked.schedule is not None:
        schedule = asked.schedule
        per_rank = num_stages // schedule.num_ranks if num_stages % schedule.num_ranks == 0 else 0
        source = f"stages={num_stages} ranks={schedule.num_ranks} (the schedule's)"
        return _sizes(asked, schedule, per_rank, (source,))
    num_ranks = experiment.num_ranks
    default = _stages_per_rank(experiment.schedule)
    lines = []
    if experiment.num_stages is None:
        lines.append(f"stages={num_stages}" + (f" ({asked.because})" if asked.because else ""))
    if num_ranks is None:
        if num_stages % default:
            raise ConfigError(_uneven(experiment, asked, num_stages, default))
        num_ranks, per_rank = num_stages // default, default
        lines.append(f"ranks={num_ranks} ({default} stage{'s' * (default > 1)} per rank)")
    else:
        per_rank = num_stages // num_ranks
    schedule = _build_schedule(experiment, num_stages, num_ranks, per_rank, asked.num_microbatches)
    return _sizes(asked, schedule, per_rank, tuple(lines))


def asked_stages(
    schedule: Component, num_stages: int | None, num_ranks: int | None, written: Schedule | None = None
) -> tuple[int | None, str]:
    """How many stages ``stages=``, ``ranks=`` or a schedule that says so itself ask for, and which of them it was."""
    if written is not None:
        return written.num_stages, _written_as(schedule)
    if num_stages is not None and num_ranks is not None:
        if num_stages < num_ranks:
            raise ConfigError(f"ranks={num_ranks}: there are only stages={num_stages}; valid: {_divisors(num_stages)}")
        if num_stages % num_ranks:
            valid = ", ".join(str(num_ranks * per_rank) for per_rank in range(1, 5))
            raise ConfigError(f"stages={num_stages}: is not a multiple of ranks={num_ranks}; valid: {valid} ...")
    if num_stages is not None:
        return num_stages, f"stages={num_stages}"
    if num_ranks is not None:
        return num_ranks * _stages_per_rank(schedule), f"ranks={num_ranks}"
    return None, ""


def _stages_per_rank(schedule: Component) -> int:
    """What the config says, else what the schedule runs when nobody says; 1 where it has no choice."""
    value = schedule.arguments.get("stages_per_rank")
    if value is None and schedule.takes("stages_per_rank"):
        value = schedule.parameters["stages_per_rank"].default
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 1


def _build_schedule(
    experiment: Experiment, num_stages: int, num_ranks: int, per_rank: int, num_microbatches: int
) -> Schedule:
    component = experiment.schedule
    asked = f"stages={num_stages}" if experiment.num_ranks is None else f"ranks={num_ranks}"
    check_schedule_fits(num_stages, num_microbatches, asked, experiment.task == "simulate")
    given = {"num_ranks": num_ranks, "num_microbatches": num_microbatches}
    if component.takes("stages_per_rank"):
        given["stages_per_rank"] = per_rank
    elif per_rank != 1:
        raise ConfigError(f"stages={num_stages}: {component.choice} runs one stage on each of the {num_ranks} ranks")
    try:
        schedule = component.once(**given)
    except ConfigError as error:
        refused = error.argument
        if refused is None or refused.name != "stages_per_rank":
            raise
        valid = refused.valid
        if isinstance(valid, str):
            valid = f"{valid} per rank"
        elif valid is not None:
            valid = [count * num_ranks for count in valid if isinstance(count, int)]
        stages = ArgumentError("stages", num_stages, f"on ranks={num_ranks}: {refused.why}", valid)
        raise ConfigError(str(stages), stages) from error
    if not isinstance(schedule, Schedule):
        raise ConfigError(
            f"schedule={component.choice}: {component.target} made a {type(schedule).__name__}, no Schedule"
        )
    made = (schedule.num_stages, schedule.num_ranks, schedule.num_microbatches)
    if made != (num_stages, num_ranks, num_microbatches):
        raise ConfigError(
            f"schedule={component.choice}: {component.target} was asked for {num_stages} stages, {num_ranks} ranks and "
            f"{num_microbatches} microbatches, and made {made[0]}, {made[1]} and {made[2]}"
        )
    return schedule


def _sizes(asked: Asked, schedule: Schedule, per_rank: int, lines: tuple[str, ...]) -> Sizes:
    return Sizes(
        schedule.num_stages,
        schedule.num_ranks,
        per_rank,
        asked.num_microbatches,
        asked.num_slices,
        asked.batch_size,
        schedule,
        lines + asked.lines,
        asked.batch_lines,
    )


def _check_written(experiment: Experiment, written: Schedule) -> None:
    """A schedule that says its numbers itself allows no others."""
    for key, name in COUNTS.items():
        count, has = getattr(experiment, name), getattr(written, name)
        if count is not None and count != has:
            raise ConfigError(f"{key}={count}: {_written_as(experiment.schedule)} has {key}={has}; valid: {has}")


def _check_told(model: Component, num_stages: int | None, because: str) -> None:
    """A model that is told its number of stages is not told another one elsewhere."""
    told = model.stages_told
    if told is not None and num_stages is not None and told != num_stages:
        raise ConfigError(
            f"model.{model.stages_argument}={told}: {because} asks for {num_stages} stages "
            f"(both count stages, not cuts); give one of them; valid: {num_stages}"
        )


def _check_found(experiment: Experiment, asked: Asked, num_stages: int) -> None:
    made = f"split={experiment.split_name} made {num_stages} of model={experiment.model_name}; valid: {num_stages}"
    if asked.num_stages is not None and asked.num_stages != num_stages:
        raise ConfigError(f"{asked.because}: asks for {asked.num_stages} stages, but {made}")
    told = experiment.model.stages_told
    if told is not None and told != num_stages:
        raise ConfigError(f"model.{experiment.model.stages_argument}={told}: asks for as many stages, but {made}")


def _uneven(experiment: Experiment, asked: Asked, num_stages: int, default: int) -> str:
    low = num_stages // default * default
    valid = ", ".join(str(count) for count in (low, low + default, low + 2 * default) if count)
    told = f"model.{experiment.model.stages_argument}" if experiment.model.stages_told else "stages"
    key = asked.because or f"{told}={num_stages}"
    return f"{key}: {experiment.schedule_name} puts {default} stages on every rank; valid: {valid} ..."


def _written_as(schedule: Component) -> str:
    file = schedule.arguments.get("file")
    return f"schedule={schedule.choice}" if file is None else f"schedule.file={file}"


def _divisors(number: int) -> str:
    small = [size for size in range(1, math.isqrt(number) + 1) if number % size == 0]
    return ", ".join(map(str, sorted({*small, *(number // size for size in small)})))
