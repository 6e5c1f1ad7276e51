"""One way to use the devices, all of them that there are, and why the others are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

from pipezoo.planner.devices.options import DeviceOptions
from pipezoo.planner.devices.transformer import Transformer
from pipezoo.topology.placement import Grid

SPLIT_BACKWARD = ("zb_h1", "zb_h2", "zbv", "v_half", "v_min", "interleaved_zero_bubble", "dualpipev")
ONE_STAGE = ("1f1b", "gpipe", "eager_1f1b", "zb_h1", "zb_h2")  # a rank; the others have two or more
A_V = ("zbv", "v_half", "v_min", "dualpipev")  # two stages a rank
MOST_RANKS = 128  # of a pipeline


@dataclass(frozen=True)
class Candidate:
    """One way to use the devices.

    Args:
        grid: ranks, replicas, shards, and their order on the nodes.
        schedule: by its name on the command line.
        stages_per_rank: stages of a rank.
        rows: of a microbatch.
        microbatches: of a replica.
        recompute: whether blocks keep their input alone.
        dp_with: who holds the states of the optimizer.
    """

    grid: Grid
    schedule: str
    stages_per_rank: int
    rows: int
    microbatches: int
    recompute: bool
    dp_with: str

    @property
    def num_stages(self) -> int:
        return self.grid.pp * self.stages_per_rank

    @property
    def splits_backward(self) -> bool:
        return self.schedule in SPLIT_BACKWARD


@dataclass
class Excluded:
    """Why combinations are no candidates: how many by reason, and one of each in words."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, example: str, count: int = 1) -> None:
        self.counts[reason] += count
        self.examples.setdefault(reason, example)


def candidates(options: DeviceOptions, gpus_per_node: int, excluded: Excluded) -> Iterator[Candidate]:
    """All that divide; the others are counted in ``excluded``."""
    model = options.model
    for grid in _grids(options, gpus_per_node, excluded):
        shapes = [*_shapes(options, grid)]
        if not shapes:
            schedules, numbers = ", ".join(options.schedules), " or ".join(map(str, options.stages_per_rank))
            excluded.add("schedule", f"{schedules}: not on pp={grid.pp} with {numbers} stages a rank")
            continue
        for rows in options.rows:
            microbatches, rest = divmod(options.global_batch, grid.dp * rows)
            if rest:
                why = f"global_batch={options.global_batch} is not divisible by dp={grid.dp} x {rows} rows"
                excluded.add("batch", why, len(shapes))
                continue
            for schedule, v, recompute, dp_with in shapes:
                if (layers := layers_of(model, grid.pp * v)) is None:
                    why = f"{model.layers} layers on {grid.pp} x {v} stages are not even"
                    excluded.add("layers", why)
                elif min(layers) < 1:
                    excluded.add("layers", f"{model.layers} layers are too few for {grid.pp} x {v} stages")
                else:
                    yield Candidate(grid, schedule, v, rows, microbatches, recompute == "full", dp_with)


def layers_of(model: Transformer, num_stages: int) -> list[int] | None:
    """``[num_stages]`` blocks of each stage: as many on each, or one fewer on the first and the last, where embedding
    and head are; None where neither goes up."""
    if model.layers % num_stages == 0:
        return [model.layers // num_stages] * num_stages
    if num_stages > 1 and (model.layers + 2) % num_stages == 0:
        each = (model.layers + 2) // num_stages
        return [each - 1] + [each] * (num_stages - 2) + [each - 1]
    return None


def _grids(options: DeviceOptions, gpus_per_node: int, excluded: Excluded) -> Iterator[Grid]:
    model, devices = options.model, options.devices
    shards = options.tp or tuple(2**k for k in range(gpus_per_node.bit_length()) if 2**k <= gpus_per_node)
    for tp in shards:
        if model.heads % tp or (model.num_kv_heads % tp and tp % model.num_kv_heads) or model.ffn % tp:
            what = f"{model.heads} heads, {model.num_kv_heads} of keys and values, ffn {model.ffn}"
            excluded.add("heads", f"{what}: not divisible by tp={tp}")
            continue
        for pp in options.pp or _divisors(devices, min(MOST_RANKS, model.layers)):
            dp, rest = divmod(devices, pp * tp)
            if rest or dp < 1:
                excluded.add("devices", f"{devices} devices are not divisible by pp={pp} x tp={tp}")
                continue
            if options.dp and dp not in options.dp:
                excluded.add("dp", f"pp={pp} x tp={tp} needs dp={dp}")
                continue
            seen = set()
            for order in options.orders:
                lengths = {"pp": pp, "dp": dp, "tp": tp}
                alike = tuple(name for name in order if lengths[name] > 1)
                if alike not in seen:
                    seen.add(alike)
                    yield Grid(pp, dp, tp, order)


def _shapes(options: DeviceOptions, grid: Grid) -> Iterator[tuple[str, int, str, str]]:
    """Schedule, stages of a rank, recomputation, and who holds the states; those that are alike once."""
    shapes = product(options.schedules, options.stages_per_rank, options.recompute, options.dp_with)
    several = len(options.dp_with) > 1
    for schedule, v, recompute, dp_with in shapes:
        if (v == 1) != (schedule in ONE_STAGE) or (schedule in A_V and v != 2):
            continue
        if grid.pp == 1 and schedule != options.schedules[0] and (v, schedule) != (1, "1f1b"):
            continue
        if recompute == "full" and schedule in SPLIT_BACKWARD:
            continue  # the halves of a backward would each need what is recomputed
        if grid.dp == 1 and several and dp_with == "fsdp":
            continue
        yield schedule, v, recompute, dp_with


def _divisors(number: int, most: int) -> list[int]:
    return [count for count in range(1, most + 1) if number % count == 0]
