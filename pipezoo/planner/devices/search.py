"""The best candidate of each grid: bounds first, so that few have to be played.

    every candidate      a step that no order of its work is shorter than, and the memory that it needs at least
    by that bound        played, unless its grid has a better one, or enough grids have

What is found is what playing every candidate would find.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from pipezoo.errors import ArgumentError
from pipezoo.planner.devices.candidate import Excluded, candidates
from pipezoo.planner.devices.evaluate import Job, Outcome
from pipezoo.planner.devices.memory import RankMemory
from pipezoo.planner.devices.options import DeviceOptions
from pipezoo.results.units import amount
from pipezoo.topology.topology import Topology

MOST_DEVICES = 2**20  # looked at for a model that fits nowhere
NEIGHBOURS = 256  # numbers of devices on either side of one that has no grid
REASONS = {  # in words, and the key to turn
    "batch": "global_batch",
    "layers": "transformer.layers",
    "heads": "transformer.heads",
    "devices": "devices",
    "dp": "dp",
    "schedule": "schedules",
}
DIVIDES = ("batch", "layers", "devices")  # reasons that other numbers of devices would not have


@dataclass
class DevicePlans:
    """What was found.

    Args:
        ranked: the best of each grid, the fastest first.
        options: what was asked.
        topology: on which devices.
        excluded: why other combinations are no plans.
        num_candidates: how many divide.
        num_played: how many of them were simulated.
        too_large: those that need too much memory, and what they hold at least.
    """

    ranked: list[Outcome]
    options: DeviceOptions
    topology: Topology
    excluded: Excluded = field(default_factory=Excluded)
    num_candidates: int = 0
    num_played: int = 0
    too_large: list[tuple[float, Job]] = field(default_factory=list)

    @property
    def best(self) -> Outcome:
        return self.ranked[0]

    def flops(self, outcome: Outcome) -> float:
        """Of the model (nothing counted twice), per second and device."""
        return self.options.model.step_flops(self.options.global_batch) / outcome.step / self.options.devices

    def mfu(self, outcome: Outcome) -> float:
        """The same as a share of the peak."""
        assert self.topology.device is not None
        return self.flops(outcome) / self.topology.device.flops

    def tokens_per_second(self, outcome: Outcome) -> float:
        return self.options.global_batch * self.options.model.sequence / outcome.step


def make_device_plans(
    options: DeviceOptions, topology: Topology, on_progress: Callable[[str], None] | None = None
) -> DevicePlans:
    """Rank what the devices can do.

    Raises:
        ArgumentError: the topology says nothing of its device or has too few, or nothing divides or fits: which term
            is in the way, and what would do.
    """
    if topology.device is None:
        raise ArgumentError("topology.device", None, "a plan needs flops, memory, memory_bandwidth and efficiency")
    topology.check_room(options.devices)
    plans = DevicePlans([], options, topology)
    best: dict[tuple[int, int, int], Outcome] = {}
    for job in sorted(_jobs(plans), key=lambda one: one.bound):
        grid = job.candidate.grid
        size = (grid.pp, grid.dp, grid.tp)
        known = best.get(size)
        if known is not None and known.step <= job.bound:
            continue
        if sum(outcome.step <= job.bound for outcome in best.values()) >= options.top:
            break
        if (outcome := _played(job, plans)) is not None and (known is None or outcome.step < known.step):
            best[size] = outcome
            if on_progress is not None:
                on_progress(f"{plans.num_played} played, the best step so far takes {_least(best):.4g} s")
    if not best:
        raise _nothing(plans)
    plans.ranked = sorted(best.values(), key=lambda outcome: (outcome.step, outcome.memory.total))
    return plans


def _least(best: dict[tuple[int, int, int], Outcome]) -> float:
    return min(outcome.step for outcome in best.values())


def _jobs(plans: DevicePlans) -> Iterator[Job]:
    """The candidates that may fit."""
    options, topology = plans.options, plans.topology
    for candidate in candidates(options, topology.gpus_per_node, plans.excluded):
        plans.num_candidates += 1
        job = Job(candidate, options, topology)
        try:
            least = job.least_memory()
        except ValueError as error:
            plans.excluded.add("schedule", f"{candidate.schedule}: {error}")
            continue
        if _fits(least, job, plans):
            yield job


def _played(job: Job, plans: DevicePlans) -> Outcome | None:
    try:
        outcome = job.play()
    except ValueError as error:
        plans.excluded.add("schedule", f"{job.candidate.schedule}: {error}")
        return None
    plans.num_played += 1
    return outcome if _fits(outcome.memory, job, plans) else None


def _fits(memory: RankMemory, job: Job, plans: DevicePlans) -> bool:
    assert plans.topology.device is not None
    if memory.total <= (limit := plans.options.limit(plans.topology.device.memory)):
        return True
    plans.too_large.append((memory.total, job))
    plans.excluded.add("memory", f"needs more than {amount(limit)}")
    return False


def _nothing(plans: DevicePlans) -> ArgumentError:
    """Which term is in the way, and what would do."""
    options = plans.options
    least = _least_of(plans.too_large)
    if least is None:
        return _no_grid(plans)
    memory, grid = least.memory, least.candidate.grid
    term, size = next(iter(memory.parts().items()))
    why = (
        f"fits nowhere; pp={grid.pp} dp={grid.dp} tp={grid.tp} needs least, {amount(memory.total)} beside the reserve, "
    )
    why += f"{amount(size)} of it {term}"
    enough = f"plan.memory={int(memory.total / (1 - options.reserve) / 1e9) + 1}GB"
    more = _devices_that_would_do(plans)
    return ArgumentError("memory", options.memory, why, enough if more is None else f"{enough}, plan.devices={more}")


def _no_grid(plans: DevicePlans) -> ArgumentError:
    """Every reason, under the key of the only one, or of the devices where another number of them would do."""
    options, excluded = plans.options, plans.excluded
    reasons = [reason for reason, _ in excluded.counts.most_common()] or ["schedule"]
    examples = [excluded.examples.get(reason, "no schedule has these sizes") for reason in reasons]
    valid = [number for number in _nearest_devices(plans) if number is not None]
    only = len(reasons) == 1 or (not valid and reasons[0] not in DIVIDES)
    key = REASONS[reasons[0]] if only else "devices"
    value = options.transformer[key.partition(".")[2]] if "." in key else getattr(options, key)
    why = examples[0]
    if len(reasons) > 1:
        why = f"no grid of {options.devices} processes fits, for instance: {'; '.join(examples)}"
    before = "" if key == "devices" else "plan.devices="
    return ArgumentError(key, value, why, [f"{before}{number}" for number in valid] or None)


def _nearest_devices(plans: DevicePlans) -> tuple[int | None, int | None]:
    """The nearest numbers of devices, fewer and more, on which something fits; None where none was found."""
    devices, nodes = plans.options.devices, plans.topology.nodes
    most = devices + NEIGHBOURS if nodes is None else nodes * plans.topology.gpus_per_node
    fewer = range(devices - 1, max(0, devices - NEIGHBOURS - 1), -1)
    more = range(devices + 1, min(most, devices + NEIGHBOURS) + 1)
    return _first_that_does(plans, fewer), _first_that_does(plans, more)


def _least_of(too_large: list[tuple[float, Job]]) -> Outcome | None:
    """Of those that do not fit, the one that holds least when it is played."""
    best: Outcome | None = None
    for total, job in sorted(too_large, key=lambda pair: pair[0]):
        if best is not None and best.memory.total <= total:
            break
        try:
            outcome = job.play()
        except ValueError:
            continue
        if best is None or outcome.memory.total < best.memory.total:
            best = outcome
    return best


def _devices_that_would_do(plans: DevicePlans) -> int | None:
    """The smallest doubling of the devices on which something fits, with as many rows; None where none was found."""
    devices, doublings = plans.options.devices, range(1, MOST_DEVICES.bit_length())
    most = min(MOST_DEVICES, 64 * devices)
    return _first_that_does(plans, [devices << k for k in doublings if devices << k <= most])


def _first_that_does(plans: DevicePlans, numbers: Iterable[int]) -> int | None:
    """The first of these numbers of devices on which something fits, however many nodes that takes."""
    for devices in numbers:
        try:
            asked = replace(plans.options, devices=devices)
        except ArgumentError:
            continue
        other = DevicePlans([], asked, replace(plans.topology, nodes=None))
        if any(_played(job, other) is not None for job in _jobs(other)):
            return devices
    return None
