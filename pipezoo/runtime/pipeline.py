"""One pipeline, ready to run: what every rank and the reference need, decided in the parent before any of them
starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from pipezoo.data.batch import Batch
from pipezoo.experiment.precision import Precision
from pipezoo.experiment.recipe import Recipe
from pipezoo.launch.mesh import Mesh, Place
from pipezoo.runtime.autocast import Autocast
from pipezoo.runtime.batch_shapes import Shapes
from pipezoo.runtime.checkpoint import Checkpoint
from pipezoo.runtime.draws import Drawing
from pipezoo.runtime.evaluation import Evaluation
from pipezoo.runtime.executor import RankExecutor, RankProgram
from pipezoo.runtime.fault_injection import Fault
from pipezoo.runtime.optimizing import MakeSchedule, Optimizing, no_schedule
from pipezoo.runtime.parameter_groups import places_of
from pipezoo.runtime.profiler import Profile
from pipezoo.runtime.stages import Stages
from pipezoo.runtime.tensor_parallel import Cuts
from pipezoo.runtime.transport import Transport
from pipezoo.schedule.action import Action, Op
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.cost import Cost
from pipezoo.supervisor.world_store import StoreAddress


@dataclass(frozen=True)
class Pipeline:
    """Everything is decided; nothing here is read from a config any more.

    Args:
        stages: the split model; ranks that are forked inherit it, one copy a rank.
        schedule: the order of actions.
        actions: for each executing rank of one replica, what it executes.
        stage_to_rank: the executing rank of each stage; the schedule's, or 0 for all where ranks are virtual.
        mesh: the replicas of the pipeline, each with a share of the rows; as asked.
        cuts: which layers are cut over the processes that share a stage; None: none.
        spread: the mesh of processes; a plain one where a process has all replicas, and trains one after the other.
        fresh_model: builds the unsplit model once more, from the seed.
        batch: the whole batch of a step, on the CPU.
        shapes: of the batches that it is made for, each with what crosses between its stages.
        loss: of the whole batch, with its ``reduction``.
        optimizer: given parameters, or groups of them.
        lr_schedule: given an optimizer; gives None where nothing moves its learning rate.
        executor: what runs the actions of a rank.
        drawing: what is random in the model, so that it can be drawn by counter; None: nothing.
        transport: carries tensors between ranks; None: all stages are in one process.
        evaluation: what is evaluated on held-out batches, and when; None: nothing.
        eval_transport: carries its tensors, as ``transport`` those of the training.
        profile: the steps that torch's profiler looks at; None: none.
        store: where the processes of a world meet; None: all are of this machine, and meet by a file in ``scratch``.
        local_rank: which of the processes of its machine this one is; None: its rank says so.
        leaves_weights: whether ranks leave their parameters and buffers after the last step, verified or not.
        scratch: a private folder for what the processes tell each other.
        own_weight_gradient: a weight gradient runs the stage's ``compute_dW`` instead of autograd's.
        defers: the executor keeps what the weight gradients of layers need, and runs their products in W.
        identity: what all ranks must agree on: config and schedule, hashed.
        emulated: what actions take, whatever they compute (:mod:`pipezoo.runtime.emulation`); None: what they take.
        fault: what happens to a rank on purpose, if anything.
        precision: in which dtypes it computes.
        recipe: what is done around the optimizer's step.
        saved: the checkpoint to go on from, if any.
        origin: what made its numbers, for the manifests of its checkpoints.
        checkpoints: the folder of those that this run writes, one after every ``checkpoint_every`` steps and one at
            the end; None: it writes none.
    """

    stages: Stages
    schedule: Schedule
    actions: list[list[Action]]
    stage_to_rank: tuple[int, ...]
    fresh_model: Callable[[], nn.Module]
    batch: Callable[[int], Batch]
    shapes: Shapes
    loss: nn.Module
    optimizer: Callable[[Any], torch.optim.Optimizer]
    executor: Executor
    scratch: Path
    steps: int
    seed: int
    dtype: torch.dtype
    device: str
    threads: int
    record_steps: int
    own_weight_gradient: bool
    verify: bool
    on_nonfinite: str
    timeout: float
    identity: str
    emulated: Cost | None = None
    fault: Fault | None = None
    precision: Precision = field(default_factory=Precision)
    recipe: Recipe = field(default_factory=Recipe)
    lr_schedule: MakeSchedule = no_schedule
    saved: Checkpoint | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)
    checkpoints: Path | None = None
    checkpoint_every: int = 1
    transport: Transport | None = None
    drawing: Drawing | None = None
    leaves_weights: bool = False
    evaluation: Evaluation | None = None
    eval_transport: Transport | None = None
    defers: bool = False
    profile: Profile | None = None
    mesh: Mesh = field(default_factory=Mesh)
    cuts: Cuts | None = None
    spread: Mesh = field(default_factory=Mesh)
    store: StoreAddress | None = None
    local_rank: int | None = None

    @property
    def steps_to_do(self) -> range:
        """The indices of the steps of this run; those before were done by the one whose checkpoint it goes on from."""
        return range(self.saved.step if self.saved else 0, self.steps)

    def records(self, step: int) -> bool:
        """Whether the timeline of this step is kept; of a training that may end early, the last ones are."""
        may_end = self.evaluation is not None and self.evaluation.options.patience is not None
        return may_end or step >= self.steps - self.record_steps

    def saves_after(self, step: int, is_best: bool = False, is_last: bool = False) -> bool:
        """
        Args:
            is_best: whether it was just evaluated, and better than ever.
            is_last: whether the training ends here, before its time.
        """
        if is_last or (is_best and self.evaluation is not None and self.evaluation.options.best):
            return self.checkpoints is not None
        return self.checkpoints is not None and ((step + 1) % self.checkpoint_every == 0 or step == self.steps - 1)

    @cached_property
    def optimizing(self) -> Optimizing:
        """How a rank steps its parameters."""
        places = places_of(self.recipe.groups, self.stages.model)
        return Optimizing(self.optimizer, self.recipe, self.lr_schedule, self.precision.masters, places)

    @property
    def autocast(self) -> Autocast:
        """What every forward runs in."""
        return Autocast.of(self.precision, self.device)

    @property
    def where_faults_strike(self) -> tuple[list[list[Action]], range]:
        """What each process executes, and in which steps."""
        return [self.actions_of(process) for process in range(self.num_processes)], self.steps_to_do

    @property
    def loss_divisor(self) -> int:
        """What the gradient of a loss is divided by, where the gradients of several steps are a mean."""
        return self.recipe.accumulate if getattr(self.loss, "reduction", "mean") == "mean" else 1

    def updates_after(self, step: int) -> bool:
        """Whether the optimizer moves after this step; its gradients add up to those before it otherwise."""
        return (step + 1) % self.recipe.accumulate == 0

    def begins_update(self, step: int) -> bool:
        return step % self.recipe.accumulate == 0

    @property
    def pp(self) -> int:
        """Processes of one replica: one a rank, or one for all of them where they are virtual."""
        return len(self.actions)

    @property
    def num_processes(self) -> int:
        """All that are started."""
        return self.spread.num_processes(self.pp)

    @property
    def keeps_bits(self) -> bool:
        """Whether one device can add up what this adds up, bit for bit. torch's sums over replicas have an order of
        their own, but for two of them."""
        return self.executor.keeps_bits and (self.spread.dp <= 2 or self.spread.dp_with == "ordered")

    @property
    def num_slices(self) -> int:
        """Microbatches of the whole batch, over all replicas."""
        return self.schedule.num_microbatches * self.mesh.dp

    def place(self, process: int) -> Place:
        """Where a process is in the grid."""
        return self.spread.place(process, self.pp)

    def shares_of(self, place: Place) -> range:
        """The replicas whose rows a process trains, one after the other."""
        return range(place.dp, place.dp + 1) if self.spread.dp == self.mesh.dp else range(self.mesh.dp)

    @property
    def writers(self) -> list[int]:
        """The processes of the first replica, by rank: what all replicas hold, they write down."""
        return [self.spread.process(Place(rank), self.pp) for rank in range(self.pp)]

    def actions_of(self, process: int) -> list[Action]:
        """What a process executes."""
        return self.actions[self.place(process).pp]

    def rank_device(self, process: int) -> torch.device:
        if self.device != "cuda":
            return torch.device("cpu")
        place = process if self.local_rank is None else self.local_rank
        return torch.device("cuda", 0 if self.local_rank is not None and torch.cuda.device_count() == 1 else place)

    def stages_of(self, rank: int) -> list[int]:
        return [stage for stage, owner in enumerate(self.stage_to_rank) if owner == rank]

    def defers_on(self, stage: int) -> bool:
        """Whether W of this stage runs products that I has put down."""
        learns = any(like.requires_grad for like in self.stages.wiring.stages[stage].inputs)
        return self.defers and learns and bool(self.schedule.microbatches_in_order(stage, Op.I))

    def file(self, name: str) -> Path:
        return self.scratch / name

    def load(self, name: str) -> Any:
        """What a process left for the others: tensors, numbers and names alone; nothing in it is executed."""
        return torch.load(self.file(name), weights_only=True, mmap=True)


class Executor(Protocol):
    """A way to execute a pipeline, made before its ranks are.

    Args:
        defers: bool  # whether it can run W as products of layers
    defers: whether it can keep what the weight gradients of layers need, and run their products in W.
    keeps_bits: whether its stages compute what they compute on one device, bit for bit.
    relays: whether its stages exchange values with their neighbours alone, so that skips go through all between.
    """

    @property
    def defers(self) -> bool: ...

    @property
    def keeps_bits(self) -> bool: ...

    @property
    def relays(self) -> bool: ...

    def inspect(
        self, index: int, stage: nn.Module, copy: nn.Module, ends: list[torch.Tensor], leaves: list[torch.Tensor]
    ) -> None:
        """Look at a stage whose backward is split, before any process starts.

        Args:
            index, stage: its place, and its module.
            copy: the module that was tried out, of which ``ends`` are the outputs and ``leaves`` the inputs that learn.

        Raises:
            ValueError: this executor would not compute all of its gradients.
        """
        ...

    def check(self, pipeline: Pipeline) -> None:
        """Look at the whole pipeline, before any process starts.

        Raises:
            ArgumentError: this executor cannot run it as it was asked to.
        """
        ...

    def transport(self, pipeline: Pipeline, start_method: str) -> Transport:
        """What carries messages between ranks that are started by ``fork`` or ``spawn``; made before they are.

        Raises:
            ArgumentError: these ranks cannot have what was asked for.
        """
        ...

    def of_rank(self, program: RankProgram) -> RankExecutor:
        """The executor of one rank, in the rank's own process."""
        ...

    def forward_only(self, program: RankProgram) -> RankExecutor:
        """The same of a program without backwards, which keeps nothing for one."""
        ...
