"""What a run measured: its steps as the ranks told them, its timeline from their spans, its costs from both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from pipezoo.runtime.microbatching import of_batch
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.schedule.action import COMPUTE
from pipezoo.simulator.bubble_causes import BubbleCauses, Clocks, causes_of_run
from pipezoo.simulator.cost import P2P, Cost
from pipezoo.simulator.cost_entries import Floats
from pipezoo.simulator.skip_messages import SkipMessage
from pipezoo.simulator.timeline import Timeline
from pipezoo.simulator.virtual_clock import MessageBytes, by_action

if TYPE_CHECKING:
    from torch import nn


class Steps:
    """The steps of a run, each put together once all processes have told their part.

    ``losses``: ``[steps][num_microbatches + 1]``, scaled losses of the microbatches and last their total.
    ``numbers``: ``[steps]``, what else a step came to, by name (``grad_norm``).
    ``seconds``: ``[steps]``; a step takes from the end of the one before, where that ended last, to its own end there.
    """

    def __init__(
        self,
        num_processes: int,
        on_progress: Callable[[int, float, float, dict[str, float]], None],
        replicas: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """``tell(step, loss, seconds, numbers)`` is called at the end of each step.

        Args:
            replicas: that each process is in, by its name; there is one alone where that is not said.
        """
        self._num_processes, self._tell, self._replicas = num_processes, on_progress, replicas
        self._heard: dict[int, list[dict[str, Any]]] = {}
        self._ended: float | None = None
        self.losses: list[list[float]] = []
        self.numbers: list[dict[str, float]] = []
        self.seconds: list[float] = []

    def on_message(self, name: str, message: dict[str, Any]) -> None:
        """One process ended a step."""
        heard = self._heard.setdefault(message["step"], [])
        heard.append({**message, "replica": self._replicas.get(name, 0)})
        if len(heard) == self._num_processes:
            self._complete(message["step"], self._heard.pop(message["step"]))

    def _complete(self, step: int, heard: list[dict[str, Any]]) -> None:
        shares = sorted((told["replica"], told["losses"]) for told in heard if told["losses"])
        if shares:
            self.losses.append(of_batch([losses for _, losses in shares]))
        with_losses_last = sorted(heard, key=lambda message: bool(message["losses"]))
        self.numbers.append({name: value for told in with_losses_last for name, value in told["numbers"].items()})
        began = min(message["began"] for message in heard) if self._ended is None else self._ended
        self.seconds.append(max(message["ended"] for message in heard) - began)
        self._ended = max(message["resumed"] for message in heard)
        self._tell(step, self.losses[-1][-1], self.seconds[-1], self.numbers[-1])

    def steady(self) -> list[float]:
        """Seconds of all steps but the first, which also warms up."""
        return self.seconds[1:] or self.seconds


def timelines(pipeline: Pipeline) -> list[Timeline]:
    """The measured timeline of each recorded step, on the clock that the ranks share."""
    spans = _all_spans(pipeline)
    return [_timeline(spans[spans[:, 0] == step, 1:7], pipeline).shifted() for step in np.unique(spans[:, 0])]


def bubble_causes(pipeline: Pipeline, measured: Timeline, p2p: P2P | None, num_cores: int) -> BubbleCauses:
    """Why the ranks were idle in the last step.

    Args:
        measured: the timeline of that step.
        p2p: of virtual ranks, as configured. None: real ranks.
        num_cores: that the processes may use.
    """
    schedule, cost = pipeline.schedule.compute_only(), pipeline.emulated
    if cost is not None:
        known = cost.p2p_seconds(pipeline.stage_to_rank)
        skips = cost.skip_seconds(pipeline.stage_to_rank)
        return causes_of_run(schedule, measured, p2p=known, alone=cost.seconds, skips=skips)
    if p2p is not None:
        sizes = message_bytes(pipeline)
        known = p2p.seconds(np.array(sizes.neighbours[1:-1]))
        skips = sizes.skip_seconds(schedule, p2p)
        return causes_of_run(schedule, measured, p2p=known, clocks=_clocks(pipeline), skips=skips)
    shares_cores = pipeline.device == "cpu" and pipeline.num_processes * pipeline.threads > num_cores
    return causes_of_run(schedule, measured, clocks=_clocks(pipeline), shares_cores=shares_cores)


def _clocks(pipeline: Pipeline) -> Clocks | None:
    """Of the last step; None where threads of ranks say nothing about their actions: several of them, or a GPU."""
    spans = _all_spans(pipeline)
    spans = spans[spans[:, 0] == spans[-1, 0], 1:]
    if pipeline.threads > 1 or np.isnan(spans[:, 6:]).any():
        return None
    computed = _timeline(np.delete(spans, (4, 5), axis=1), pipeline)
    return Clocks(*by_action(pipeline.schedule.compute_only(), computed))


def waits(pipeline: Pipeline, measured: list[Timeline]) -> tuple[P2P, Floats]:
    """What a run spent between its actions: the p2p message, and ``[num_stages, 4]`` seconds before each stage's op.

        rank 0 |--0F0--|                      a rank that waits for a message starts p2p after it was made
        rank 1    p2p   ~~~~|--1F0--|g|--1F1  a rank whose input is there needs g to begin: messages, Python, torch

    Both are medians over the recorded steps; the p2p message is what remains when g is taken off it.
    """
    schedule = pipeline.schedule.compute_only()
    first = np.zeros(schedule.num_actions, dtype=bool)
    first[schedule.offsets[:-1]] = True
    source = schedule.source
    crosses = (source >= 0) & (schedule.rank[source] != schedule.rank)
    before = np.zeros((schedule.num_stages, len(COMPUTE)))
    gaps, delays, kinds = [], [], []
    for timeline in measured:
        start, end = by_action(schedule, timeline)
        free = np.where(first, -np.inf, np.roll(end, 1))
        arrived = np.where(source < 0, -np.inf, end[source])
        ready, waited = ~first & (arrived <= free), crosses & (arrived > free)
        gaps.append((start - free)[ready])
        kinds.append((schedule.stage.astype(np.int64) * len(COMPUTE) + schedule.op)[ready])
        delays.append((start - arrived)[waited])
    gap, kind, delay = np.concatenate(gaps), np.concatenate(kinds), np.concatenate(delays)
    for code in np.unique(kind):
        before.ravel()[code] = np.median(gap[kind == code])
    typical = float(np.median(gap)) if len(gap) else 0.0
    latency = max(0.0, float(np.median(delay)) - typical) if len(delay) else 0.0
    return P2P(latency), before


def message_bytes(pipeline: Pipeline) -> MessageBytes:
    """How large the messages of a microbatch are."""
    stages = pipeline.stages
    neighbours = [float(stages.message_bytes(stage)) for stage in range(stages.num_stages + 1)]
    return MessageBytes(
        neighbours, [SkipMessage(hop.before, hop.after, float(hop.num_bytes)) for hop in stages.wiring.skips]
    )


def measured_cost(pipeline: Pipeline, measured: list[Timeline], told: list[dict[str, Any]], p2p: P2P | None) -> Cost:
    """What this run's stages cost: medians of their actions' times, and the bytes that they kept and sent.

    Emulated stages cost what they were told to; what is measured of them is how well messages kept up.

    Args:
        told: what each process returned (:func:`pipezoo.runtime.rank.run_rank`).
        p2p: of virtual ranks, as configured. None: real ranks, whose messages and whose time between actions are
            measured; the latter is part of what an action costs.
    """
    num_stages = pipeline.stages.num_stages
    seconds = measured_seconds(measured, num_stages)
    activation_bytes, frees, optimizer = np.zeros(num_stages), np.zeros(num_stages), np.zeros(num_stages)
    if p2p is None:
        p2p, before = waits(pipeline, measured)
        seconds += before
        for rank, words in enumerate(told):
            optimizer[pipeline.stages_of(rank)[0]] = words["rest"]
    for account in (words["memory"] for words in told):
        for stage in account["activation_bytes"]:
            activation_bytes[stage] = account["activation_bytes"][stage]
            frees[stage] = min(activation_bytes[stage], max(0.0, account["freed_by_input_grad"][stage]))
    sizes = message_bytes(pipeline)
    output_bytes = np.array(sizes.neighbours[1:])
    output_bytes[-1] = 0.0
    if pipeline.emulated is not None:
        return replace(pipeline.emulated, activation_bytes=activation_bytes, freed_by_input_grad=frees)
    grad_bytes = np.array([_gradient_bytes(module) for module in pipeline.stages.modules])
    amounts = (activation_bytes, frees, output_bytes, optimizer)
    return Cost(seconds, *amounts, p2p, skips=sizes.skips, grad_bytes=grad_bytes)


def _gradient_bytes(module: nn.Module) -> float:
    """What the gradients of a stage have, all together: what replicas would add up."""
    trained = (parameter for parameter in module.parameters() if parameter.requires_grad)
    return float(sum(parameter.numel() * parameter.element_size() for parameter in trained))


def peak_bytes(told: list[dict[str, Any]]) -> list[int]:
    """``[num_ranks]``: the most that autograd kept at once on each rank."""
    peaks = {rank: int(num_bytes) for words in told for rank, num_bytes in words["memory"]["peak"].items()}
    return [peaks[rank] for rank in sorted(peaks)]


def _all_spans(pipeline: Pipeline) -> Floats:
    """``[num_spans, 9]``: step, rank, stage, op, microbatch, start, end, and the thread's clock at both."""
    components = []
    for rank in range(pipeline.pp):
        spans = np.load(pipeline.file(f"spans{rank}.npy"), allow_pickle=False)
        components.append(np.insert(spans, 1, rank, axis=1))
    return np.concatenate(components)


def _timeline(columns: Floats, pipeline: Pipeline) -> Timeline:
    rank, stage, op, microbatch, start, end = columns.T
    ints = (rank.astype(np.int32), stage.astype(np.int32), op.astype(np.int8), microbatch.astype(np.int32))
    return Timeline(*ints, start, end, pipeline.schedule.num_ranks, "measured")


def measured_seconds(timelines: Sequence[Timeline], num_stages: int) -> Floats:
    """``[num_stages, 4]``: median time of every stage's F, B, I and W in measured timelines, NaN for what never ran."""
    seconds = np.full((num_stages, len(COMPUTE)), np.nan)
    stage = np.concatenate([timeline.stage for timeline in timelines])
    op = np.concatenate([timeline.op for timeline in timelines])
    took = np.concatenate([timeline.end - timeline.start for timeline in timelines])
    for at in range(num_stages):
        for code in COMPUTE:
            chosen = (stage == at) & (op == code)
            if chosen.any():
                seconds[at, code] = np.median(took[chosen])
    return seconds
