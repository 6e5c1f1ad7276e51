"""One run: what was asked, typed and range-checked. What follows from it is worked out in ``sizes.py``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pipezoo.errors import ConfigError
from pipezoo.experiment.component import Part, show
from pipezoo.simulator.cost import Hop
from pipezoo.suggest import unknown
from pipezoo.validators import check_int

TASKS = ("train", "verify", "simulate", "plan")
WORDS = {
    "task": TASKS,
    "dtype": ("float32", "float64", "bfloat16"),
    "device": ("cpu", "cuda"),
    "weight_grad": ("autograd", "module"),
    "on_nonfinite": ("stop", "warn", "ignore"),
}
COUNTS = {"stages": "num_stages", "ranks": "num_ranks", "microbatches": "num_microbatches"}  # key: field


@dataclass(frozen=True)
class Processes:
    """``launch=processes``: one process a rank on this machine.

    Args:
        threads: of each rank; None: the cores dealt evenly to the ranks, at least 1.
        start_method: ``fork`` or ``spawn``; None: fork where it is safe.
        step_timeout: seconds without progress after which a run is given up.
        first_step_timeout: the same until the first step is done.
        emulate: whether an action takes as long as the experiment's cost says, whatever it computes.
    """

    threads: int | None = None
    start_method: str | None = None
    step_timeout: float = 60.0
    first_step_timeout: float = 120.0
    emulate: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.emulate, bool):
            raise ValueError(f"emulate={show(self.emulate)}: must be true or false; valid: true, false")
        if self.threads is not None:
            check_int("threads", self.threads, 1)
        if self.start_method not in (None, "fork", "spawn"):
            raise ValueError(f"start_method={self.start_method}: {unknown('method', self.start_method, _METHODS)}")
        for name in ("step_timeout", "first_step_timeout"):
            _check_number(name, getattr(self, name), "> 0")


_METHODS = ("fork", "spawn")


@dataclass(frozen=True)
class Virtual:
    """``launch=virtual``: every rank in one process on one device, its actions placed on a virtual clock.

    Args:
        threads: of the one process; None: 1, whose times are the steadiest.
        latency, bandwidth: what a message between two ranks takes on the virtual clock: seconds, bytes per second.
        step_timeout, first_step_timeout: as of :class:`Processes`.
    """

    threads: int | None = None
    latency: float = 0.0
    bandwidth: float = math.inf
    step_timeout: float = 60.0
    first_step_timeout: float = 120.0

    def __post_init__(self) -> None:
        if self.threads is not None:
            check_int("threads", self.threads, 1)
        Hop(self.latency, self.bandwidth)
        for name in ("step_timeout", "first_step_timeout"):
            _check_number(name, getattr(self, name), "> 0")

    @property
    def hop(self) -> Hop:
        return Hop(self.latency, self.bandwidth)


@dataclass(frozen=True)
class Checkpoints:
    """``checkpoint=files``: what is kept to go on from.

    Args:
        every: steps between two checkpoints; None: none are written.
        keep: how many of the latest are kept; None: all.
    """

    every: int | None = None
    keep: int | None = 2

    def __post_init__(self) -> None:
        for name in ("every", "keep"):
            if (value := getattr(self, name)) is not None:
                check_int(name, value, 1)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One run, as asked; None is *derive it*.

    The parts are called with what the config cannot know: ``model()``, ``data(batch_size=, seed=)``,
    ``split(model=, num_stages=, example=)``, ``schedule(num_ranks=, num_microbatches=)``, ``loss()``,
    ``optimizer(params=)``, ``cost(num_stages=, stages_per_rank=)``. What they refuse is a ConfigError in the
    user's spelling.

    Args:
        launch: how ranks run; a frozen dataclass such as :class:`Processes`.
        steps: optimizer steps.
        tolerance: largest relative difference that counts as *close*; None: by dtype.
        weight_grad: who splits the backward into halves, ``autograd`` or the model itself (``module``).
        record_steps: how many of the last steps are recorded in the timeline.
        objective: the key of ``result.json`` that sweepers see; dots lead into it.
        checkpoint: what is kept to go on from.
        resume: the folder of a run or of a checkpoint to go on from.
        exports: what other trainers are told of the pipeline (``pipezoo/exports/``), called with a blueprint of it.
        fault: what happens to a rank on purpose (:mod:`pipezoo.runtime.fault_injection`), or None.
        config_hash: of everything that determines the numbers.

    Raises:
        ConfigError: a value out of range.
    """

    task: str
    model: Part
    data: Part
    split: Part
    schedule: Part
    optimizer: Part
    loss: Part
    cost: Part
    launch: Any
    launch_name: str
    plan: Any = None
    num_stages: int | None = None
    num_ranks: int | None = None
    num_microbatches: int | None = None
    batch_size: int | None = None
    steps: int = 10
    seed: int = 0
    dtype: str = "float32"
    device: str = "cpu"
    verify: bool = True
    tolerance: float | None = None
    weight_grad: str = "autograd"
    record_steps: int = 1
    on_nonfinite: str = "stop"
    objective: str = "step_seconds"
    debug: bool = False
    checkpoint: Checkpoints = Checkpoints()
    resume: str | None = None
    fault: Any = None
    exports: tuple[Part, ...] = ()
    config_hash: str = ""

    def __post_init__(self) -> None:
        try:
            for name, valid in WORDS.items():
                if (word := getattr(self, name)) not in valid:
                    raise ConfigError(f"{name}={show(word)}: {unknown('word', word, valid)}")
            for key, name in {**COUNTS, "batch_size": "batch_size"}.items():
                if (count := getattr(self, name)) is not None:
                    _check_count(key, count)
            for name, low in (("steps", 1), ("seed", 0), ("record_steps", 1)):
                _check_count(name, getattr(self, name), low)
            if self.tolerance is not None:
                _check_number("tolerance", self.tolerance, ">= 0")
            for name in ("verify", "debug"):
                if not isinstance(getattr(self, name), bool):
                    raise ConfigError(f"{name}={show(getattr(self, name))}: must be true or false; valid: true, false")
            if self.resume is not None and (not isinstance(self.resume, str) or not self.resume):
                raise ConfigError(f"resume={show(self.resume)}: must be the folder of a run, or null")
            if not isinstance(self.objective, str) or not self.objective:
                raise ConfigError(f"objective={show(self.objective)}: must be a key of result.json, like step_seconds")
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(str(error)) from None

    @property
    def model_name(self) -> str:
        return self.model.choice

    @property
    def data_name(self) -> str:
        return self.data.choice

    @property
    def split_name(self) -> str:
        return self.split.choice

    @property
    def schedule_name(self) -> str:
        return self.schedule.choice

    @property
    def optimizer_name(self) -> str:
        return self.optimizer.choice

    @property
    def loss_name(self) -> str:
        return self.loss.choice


def _check_count(key: str, value: object, low: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ConfigError(f"{key}={show(value)}: must be an int; valid: >= {low}")


def _check_number(key: str, value: object, valid: str) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not (value > 0 or (value == 0 and valid == ">= 0")):  # type: ignore[operator]
        raise ValueError(f"{key}={show(value)}: must be a number; valid: {valid}")
