"""One run: what was asked, typed and range-checked. What follows from it is worked out in ``sizes.py``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipezoo.errors import ArgumentError, ConfigError
from pipezoo.experiment.component import Component
from pipezoo.experiment.evaluation import EvalOptions
from pipezoo.experiment.precision import Precision
from pipezoo.experiment.profile import ProfileOptions
from pipezoo.experiment.recipe import Recipe
from pipezoo.experiment.tensor_plan import TensorPlan
from pipezoo.launch.launch import Launch
from pipezoo.launch.mesh import Mesh
from pipezoo.results.result import Result
from pipezoo.topology.topology import Topology
from pipezoo.validators import check_bool, check_int, check_number, check_word, unknown_word

TASKS = ("train", "verify", "simulate", "plan")
WORDS = {
    "task": TASKS,
    "dtype": ("float32", "float64", "bfloat16"),
    "device": ("cpu", "cuda"),
    "weight_grad": ("autograd", "deferred", "module"),
    "on_nonfinite": ("stop", "warn", "ignore"),
}
COUNTS = {"stages": "num_stages", "ranks": "num_ranks", "microbatches": "num_microbatches"}  # key: field


@dataclass(frozen=True)
class CheckpointOptions:
    """``checkpoint=files``: what is kept to go on from.

    Args:
        every: steps between two checkpoints; None: none are written.
        keep: how many of the latest are kept; None: all.
        to_go_on: whether a run is refused whose checkpoints nobody could go on from; else they say why not.
    """

    every: int | None = None
    keep: int | None = 2
    to_go_on: bool = True

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
        launch: how ranks run; a :class:`Launch`, such as :class:`pipezoo.launch.Processes`.
        mesh: what stands beside each rank: replicas of the pipeline, processes that share its stages.
        steps: optimizer steps.
        tolerance: largest relative difference that counts as *close*; None: by dtype.
        weight_grad: who splits the backward into halves, ``autograd``, the executor (``deferred``), or the
            model itself (``module``).
        record_steps: how many of the last steps are recorded in the timeline.
        lr_schedule: of the learning rate, called with ``optimizer=`` and, where it takes them, ``updates=``; or None.
        precision: in which dtypes it computes.
        recipe: what is done around the optimizer's step.
        objective: the key of ``result.json`` that sweepers see; dots lead into it.
        checkpoint: what is kept to go on from.
        eval: what is evaluated on held-out batches, and when.
        resume: the folder of a run or of a checkpoint to go on from.
        weights: a file of weights that the model starts from; None: those of its constructor and the seed.
        topology: where the processes stand, for predictions; None: every message takes what the cost says.
        profile: the steps that torch's profiler looks at, and how; None: none.
        trackers: who is told of the training (``pipezoo/trackers/``), called with its folder and what runs.
        exports: what other trainers are told of the pipeline (``pipezoo/exports/``), called with a spec of it.
        fault: what happens to a rank on purpose (:mod:`pipezoo.runtime.fault_injection`), or None.
        output: which part of what the model returns is its output: a field, a key or an index; None: all of it.
        tensor_plan: which layers of the model are cut where several processes share a stage.
        loss_inputs: names of the model's inputs that the loss takes by keyword.
        config_hash: of everything that determines the numbers.

    Raises:
        ConfigError: a value out of range.
    """

    task: str
    model: Component
    data: Component
    split: Component
    schedule: Component
    optimizer: Component
    loss: Component
    executor: Component
    cost: Component
    launch: Launch
    launch_name: str
    mesh: Mesh = field(default_factory=Mesh)
    plan: Any = None
    topology: Topology | None = None
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
    lr_schedule: Component | None = None
    precision: Precision = field(default_factory=Precision)
    precision_name: str = "none"
    recipe: Recipe = field(default_factory=Recipe)
    checkpoint: CheckpointOptions = CheckpointOptions()
    eval: EvalOptions = field(default_factory=EvalOptions)
    resume: str | None = None
    weights: str | None = None
    profile: ProfileOptions | None = None
    fault: Any = None
    exports: tuple[Component, ...] = ()
    trackers: tuple[Component, ...] = ()
    output: str | int | None = None
    tensor_plan: TensorPlan = field(default_factory=TensorPlan)
    loss_inputs: tuple[str, ...] = ()
    config_hash: str = ""

    def __post_init__(self) -> None:
        try:
            for name, valid in WORDS.items():
                check_word(name, getattr(self, name), valid)
            for key, name in {**COUNTS, "batch_size": "batch_size"}.items():
                if (count := getattr(self, name)) is not None:
                    check_int(key, count, 1, listed=True)
            for name, low in (("steps", 1), ("seed", 0), ("record_steps", 1)):
                check_int(name, getattr(self, name), low, listed=True)
            if self.tolerance is not None:
                object.__setattr__(self, "tolerance", check_number("tolerance", self.tolerance, listed=True))
            for name in ("verify", "debug"):
                check_bool(name, getattr(self, name))
            if self.resume is not None and (not isinstance(self.resume, str) or not self.resume):
                raise ArgumentError("resume", self.resume, "must be the folder of a run, or null")
            self._check_recipe()
            if not isinstance(self.objective, str) or not self.objective:
                raise ArgumentError("objective", self.objective, "must be a key of result.json, like step_seconds")
            if (first := self.objective.partition(".")[0]) not in (known := Result.keys()):
                raise unknown_word("objective", self.objective, "key of result.json", known, first)
        except ArgumentError as error:
            raise ConfigError(error.at(error.argument), error) from None

    def _check_recipe(self) -> None:
        if self.eval.weights == "ema" and self.recipe.ema is None:
            raise ArgumentError("eval.weights", "ema", "no average is kept", "optimizer.ema=0.999 as well, or model")
        if self.precision.parameters not in (None, self.dtype):
            raise ArgumentError(
                "precision",
                self.precision_name,
                f"does not go with dtype={self.dtype}",
                f"dtype={self.precision.parameters}",
            )
        every = self.recipe.accumulate
        for key, count in (
            ("steps", self.steps),
            ("checkpoint.every", self.checkpoint.every),
            ("eval.every", self.eval.every),
        ):
            if count is not None and count % every:
                raise ArgumentError(
                    key, count, f"is not a multiple of optimizer.accumulate={every}", f"{every}, {2 * every} ..."
                )

    @property
    def num_updates(self) -> int:
        """How often the optimizer steps."""
        return self.steps // self.recipe.accumulate

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

    @property
    def executor_name(self) -> str:
        return self.executor.choice
