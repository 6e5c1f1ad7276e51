"""A candidate played: its step by the simulator, and what its fullest device holds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from pipezoo.planner.devices.candidate import Candidate, layers_of
from pipezoo.planner.devices.layer_time import Seconds, Shard
from pipezoo.planner.devices.many_microbatches import step_and_peak
from pipezoo.planner.devices.memory import RankMemory, rank_memory
from pipezoo.planner.devices.options import DeviceOptions
from pipezoo.planner.devices.transformer import BYTES
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules import ZOO
from pipezoo.simulator.bounds import lower_bound
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.cost_entries import Floats
from pipezoo.topology.collectives import reduce_scatter_seconds
from pipezoo.topology.placement import Grid, Placement
from pipezoo.topology.topology import Topology


@dataclass(frozen=True)
class Outcome:
    """What a candidate comes to.

    Args:
        candidate: what was played.
        step: seconds.
        work: seconds that the busiest rank computes in a step.
        memory: of the fullest device.
        rank: which rank of the pipeline that is.
    """

    candidate: Candidate
    step: float
    work: float
    memory: RankMemory
    rank: int

    @property
    def bubble(self) -> float:
        """Share of the step in which the busiest rank computes nothing: it waits, or adds up gradients."""
        return 1 - self.work / self.step


class Job:
    """A candidate with its costs and its memory."""

    def __init__(self, candidate: Candidate, options: DeviceOptions, topology: Topology) -> None:
        self.candidate, self.options, self.topology = candidate, options, topology
        self.placement = placement_of(topology, candidate.grid)
        self.shard = Shard(
            options.model, topology, self.placement.shards, options.sequence_parallel, options.tp_overlap
        )
        self.layers = layers_of(options.model, candidate.num_stages) or []

    @cached_property
    def parameters(self) -> Floats:
        """``[num_stages]`` parameters of a stage on one shard. The last norm is left out."""
        counts = np.array(self.layers, dtype=np.float64) * self.options.model.layer_parameters
        counts[0] += self.options.model.end_parameters
        counts[-1] += self.options.model.end_parameters
        if self.options.model.tied and len(counts) == 1:
            counts[0] -= self.options.model.end_parameters
        return counts / self.candidate.grid.tp

    @cached_property
    def cost(self) -> Cost:
        """Of all stages, of the pipeline whose messages have the farthest to go."""
        candidate, model = self.candidate, self.options.model
        block = self.shard.block(candidate.rows, candidate.recompute)
        stages = [block.times(count) for count in self.layers]
        stages[-1] = stages[-1] + self.shard.head(candidate.rows)
        tokens = candidate.rows * model.sequence
        return Cost(
            np.array([_row(stage) for stage in stages]),
            activation_bytes=self._kept(),
            output_bytes=BYTES * tokens * model.hidden / candidate.grid.tp,
            optimizer=self._once(),
            links=max(self.placement.routes, key=lambda route: route.distance).links,
        )

    def _kept(self) -> Floats:
        """``[num_stages]`` bytes of a microbatch; the last stage keeps the logits in float32 as well."""
        options, candidate, model = self.options, self.candidate, self.options.model
        tokens, tp = candidate.rows * model.sequence, candidate.grid.tp
        kept = model.input_bytes if candidate.recompute else model.activation_bytes
        amounts = np.array(self.layers, dtype=np.float64) * tokens * kept(tp, options.sequence_parallel)
        amounts[-1] += 4 * tokens * model.vocabulary / tp
        return amounts

    def _once(self) -> Floats:
        """``[num_stages]`` seconds after the last backward: gradients added up, the optimizer's step."""
        states, grid, topology = self.options.states, self.candidate.grid, self.topology
        assert topology.device is not None
        sharded = grid.dp if self.candidate.dp_with == "fsdp" else 1
        group = self.placement.replicas
        found = []
        for count in self.parameters.tolist():
            back = states.parameter if self.candidate.dp_with == "fsdp" else states.gradient
            summed = sum(reduce_scatter_seconds(count * width, group, topology) for width in (states.gradient, back))
            moved = count * (2 * states.state / sharded + states.parameter + states.gradient)
            found.append(summed * (1 - self.options.dp_overlap) + moved / topology.device.memory_bandwidth)
        return np.array(found)

    def schedule(self, microbatches: int) -> Schedule:
        """Raises ValueError where the schedule has no such size."""
        return schedule_of(
            self.candidate.schedule, self.candidate.grid.pp, microbatches, self.candidate.stages_per_rank
        )

    @cached_property
    def stage_to_rank(self) -> tuple[int, ...]:
        """Which rank has which stage. Raises ValueError as :meth:`schedule`."""
        p, m = self.candidate.grid.pp, self.candidate.microbatches
        return self.schedule(m if m < 2 * p else p + m % p).stage_to_rank

    @cached_property
    def bound(self) -> float:
        """A step that no order of this work is shorter than."""
        makespan = lower_bound(self.cost, self.stage_to_rank, self.candidate.microbatches)
        return makespan + float(self.cost.optimizer.min())

    def least_memory(self) -> RankMemory:
        """What the fullest device holds at least: the activations of one microbatch beside its states."""
        per_rank = np.bincount(self.stage_to_rank, weights=self.cost.activation_bytes).astype(np.float64)
        return self._fullest(per_rank)[0]

    def play(self) -> Outcome:
        """The step and the memory of the fullest device. Raises ValueError as :meth:`schedule`."""
        p, m = self.candidate.grid.pp, self.candidate.microbatches
        step, peak = step_and_peak(self.schedule, self.cost, p, m)
        memory, rank = self._fullest(peak)
        work = np.bincount(self.stage_to_rank, weights=self.cost.F + self.cost.B) * m
        return Outcome(self.candidate, step, float(work.max()), memory, rank)

    def _fullest(self, activations: Floats) -> tuple[RankMemory, int]:
        """Of the ranks with these activations, what the one that holds most has, and which it is."""
        if self.candidate.recompute:  # one block at a time has all of its activations
            model, candidate = self.options.model, self.candidate
            tokens = candidate.rows * model.sequence
            activations = activations + tokens * model.activation_bytes(
                candidate.grid.tp, self.options.sequence_parallel
            )
        sharded = self.candidate.grid.dp if self.candidate.dp_with == "fsdp" else 1
        parameters = np.bincount(self.stage_to_rank, weights=self.parameters)
        held = [
            rank_memory(count, self.options.states, sharded, kept)
            for count, kept in zip(parameters.tolist(), activations.tolist(), strict=True)
        ]
        rank = max(range(len(held)), key=lambda at: held[at].total)
        return held[rank], rank


def _row(seconds: Seconds) -> tuple[float, float, float, float]:
    """F, B, I, W; B follows from its halves."""
    return seconds.F, float("nan"), seconds.I, seconds.W


@lru_cache(maxsize=256)
def schedule_of(name: str, num_ranks: int, microbatches: int, stages_per_rank: int) -> Schedule:
    """A schedule by its name on the command line. Raises ValueError for sizes that it does not have."""
    return ZOO[name](num_ranks, microbatches, stages_per_rank=stages_per_rank)


@lru_cache(maxsize=1024)
def placement_of(topology: Topology, grid: Grid) -> Placement:
    return Placement(topology, grid)
