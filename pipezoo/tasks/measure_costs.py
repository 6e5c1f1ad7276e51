"""The costs that a task plays with: from the config, or measured here and now and left in the run's folder."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

from pipezoo.costs.profiled import Measuring
from pipezoo.errors import ConfigError
from pipezoo.experiment.derive import ROWS_PER_MICROBATCH
from pipezoo.experiment.experiment import Experiment
from pipezoo.results.run_dir import write_text
from pipezoo.results.units import amount, time_text
from pipezoo.simulator.cost import P2P, Cost
from pipezoo.tasks.terminal import PrintLine

if TYPE_CHECKING:
    from pipezoo.profiling.p2p_benchmark import Sample

CostOf = Callable[[int, int, int], Cost]
LOG = "p2p.log"  # what the two processes that write to each other print


def costs_of(experiment: Experiment, folder: Path, print_line: PrintLine) -> CostOf:
    """A function ``(num_stages, stages_per_rank, num_microbatches) -> Cost``; what it measures, it measures once.

    The function raises ConfigError for costs that cannot be had.
    """
    bench = Bench(experiment, folder, print_line)

    def cost_of(num_stages: int, stages_per_rank: int, num_microbatches: int) -> Cost:
        found = experiment.cost(num_stages=num_stages, stages_per_rank=stages_per_rank)
        if isinstance(found, Measuring):
            return bench.measure(found, _rows(experiment, num_microbatches))
        if not isinstance(found, Cost):
            raise ConfigError(f"cost={experiment.cost.choice}: {experiment.cost.target} made a {type(found).__name__}")
        return found

    return cost_of


def measures(experiment: Experiment) -> bool:
    """Whether costs are measured here and now."""
    return experiment.cost.target == "pipezoo.costs.profiled.measured"


def check_rows(experiment: Experiment, counts: Sequence[int]) -> None:
    """Where numbers of microbatches share a batch, their rows differ, and so must their costs.

    Raises ConfigError where the costs are of one size, whatever the rows.
    """
    if experiment.batch_size is not None and len(set(counts)) > 1 and not measures(experiment):
        raise ConfigError(
            f"batch_size={experiment.batch_size}: {' and '.join(map(str, counts))} microbatches of it differ in rows, "
            f"and cost={experiment.cost.choice} knows one size; valid: cost=measured, or batch_size=null"
        )


def _rows(experiment: Experiment, num_microbatches: int) -> int:
    """Rows of a microbatch."""
    batch_size = experiment.batch_size
    if batch_size is None:
        return ROWS_PER_MICROBATCH
    if batch_size % num_microbatches:
        raise ConfigError(f"batch_size={batch_size}: is not divisible by microbatches={num_microbatches}")
    return batch_size // num_microbatches


class Bench:
    """What was measured so far: stages by their number and rows, and the p2p message."""

    def __init__(self, experiment: Experiment, folder: Path, print_line: PrintLine) -> None:
        self._experiment, self._folder, self._print_line = experiment, folder, print_line
        self._costs: dict[tuple[int, int], Cost] = {}
        self._p2p: P2P | None = None
        self._samples: list[Sample] = []

    def measure(self, measuring: Measuring, rows: int) -> Cost:
        """The costs of so many stages, of a microbatch of so many rows; measured once."""
        key = (measuring.num_stages, rows)
        if key not in self._costs:
            self._costs[key] = self._stages(measuring, rows, self._message(measuring))
        return self._costs[key]

    def _stages(self, measuring: Measuring, rows: int, p2p: P2P) -> Cost:
        """Run the stages, and write what they cost, and how sure that is, as a cost file."""
        from pipezoo.profiling.stage_profiler import cost_from, run_of
        from pipezoo.results.timeline_file import load_timelines
        from pipezoo.splitters._dry_run import state_kept
        from pipezoo.tasks.train import run as train

        name = f"{measuring.num_stages}-stages-{rows}-rows"
        inner = self._folder / f"measured-{name}"
        inner.mkdir()
        with state_kept():
            result = train(run_of(self._experiment, measuring, rows), inner, lambda line: None)
        timelines = [timeline for timeline in load_timelines(inner) if timeline.source == "measured"]
        cost, spread = cost_from(result, timelines, p2p)
        write_text(self._folder / f"cost-{name}.yaml", _file(cost, spread, self._samples))
        self._print_line(
            f"measured  {measuring.num_stages} stages, {rows} rows in a microbatch: cost-{name}.yaml; the middle half "
            f"of a time spreads by {100 * _typical_spread(spread):.0f} %; I + W takes {_halves(cost):.2f} times B"
        )
        return cost

    def _message(self, measuring: Measuring) -> P2P:
        """The p2p message: given, said by the launch, or measured."""
        if not measuring.asks_for_p2p:
            return measuring.p2p(P2P())
        if (p2p := self._experiment.launch.p2p) is not None:
            return measuring.p2p(p2p)
        if self._p2p is None:
            self._p2p = self._between_two(measuring)
        return measuring.p2p(self._p2p)

    def _between_two(self, measuring: Measuring) -> P2P:
        from pipezoo.profiling.p2p_benchmark import fit, measure_p2p
        from pipezoo.runtime.start_method import start_method
        from pipezoo.supervisor.rendezvous_dir import rendezvous_dir

        device = self._experiment.device
        if device == "cuda" and (lacks := _too_few_gpus()):
            self._print_line(
                f"measured  no message: {lacks}; cost.latency={measuring.latency} cost.bandwidth={measuring.bandwidth}"
            )
            return P2P()
        method, _ = start_method(self._experiment.launch.start_method)
        with rendezvous_dir(self._folder) as scratch:
            self._samples = measure_p2p(scratch, device, method, self._folder / LOG)
        if not (self._folder / LOG).stat().st_size:
            (self._folder / LOG).unlink()
        p2p = fit(self._samples)
        rate = f"and a second for {p2p.bandwidth / 1e9:.3g} GB" if math.isfinite(p2p.bandwidth) else "of any size"
        self._print_line(
            f"measured  a message takes {time_text(p2p.latency, 's')} {rate}, "
            f"between two idle processes, with messages of {amount(self._samples[0].num_bytes)} "
            f"to {amount(self._samples[-1].num_bytes)}"
        )
        return p2p


def _too_few_gpus() -> str:
    import torch

    found = torch.cuda.device_count()
    return "" if found > 1 else f"it takes two GPUs, and this machine has {found}"


def _typical_spread(spread: dict[str, Any]) -> float:
    """Of the middle half of a stage's times of one op, as a share; times of no length left out."""
    shares = [op["high"] / op["low"] - 1 for ops in spread.values() for op in ops.values() if op["low"] > 1e-5]
    return statistics.median(shares) if shares else 0.0


def _halves(cost: Cost) -> float:
    """What splitting a backward makes of its time, over all stages."""
    _, whole, inputs, weights = cost.seconds.sum(axis=0)
    return float((inputs + weights) / whole)


def _file(cost: Cost, spread: dict[str, Any], samples: Sequence[Sample]) -> str:
    """A cost file, with the spread of the times as comments."""
    lines = ["# Medians of measured times in seconds, and bytes; quartiles of the times:"]
    for stage, ops in spread.items():
        cells = [f"{name} {op['low']:.3g}..{op['high']:.3g} ({op['num_spans']})" for name, op in ops.items()]
        lines.append(f"#   {stage}: {', '.join(cells)}")
    for num_bytes, low, _, high in samples:
        lines.append(f"#   message of {num_bytes} bytes: {low:.3g}..{high:.3g}")
    return "\n".join(lines) + "\n" + str(yaml.safe_dump(cost.to_dict(), sort_keys=False))
