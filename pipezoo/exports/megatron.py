"""For Megatron-LM: its arguments, with the layers of every stage as a ``--pipeline-model-parallel-layout``.

    Ett|tt|tt|ttL      E embedding, t a transformer layer, L final norm, head and loss; | is between stages, which go
                       round the ranks: of two ranks the first has Ett and tt, the second the others

Megatron makes its order itself: 1F1B with one stage a rank, and interleaved 1F1B in groups of microbatches with more.
An order is exported if it is one of these, whatever its name; and a model if it is a stack of equal blocks between an
embedding and a head. Read at d98e8a6 (August 2026, core 0.20).
"""

from __future__ import annotations

from itertools import takewhile

from pipezoo.exports.spec import Export, ExportSpec
from pipezoo.schedule.action import Action, Op
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules.grouped_interleaved_1f1b import grouped_interleaved_1f1b
from pipezoo.schedules.one_f_one_b import one_f_one_b


def megatron(spec: ExportSpec) -> Export:
    """``arguments.sh``: a bash array to add to the arguments of a training script.

    Raises:
        ValueError: Megatron has not this order or this placement, or the model is no stack it could lay out.
    """
    group = _group_size(spec)
    notes: tuple[str, ...] = ()
    if spec.modules is None:
        lines, notes = _without_names(spec), (f"no layout: {spec.unnamed}",)
    else:
        lines = _layout(spec)
    if group is not None:
        lines.append(f"--microbatch-group-size-per-virtual-pipeline-stage {group}")
    if (rows := spec.rows) is not None:
        lines.append(f"--micro-batch-size {rows}")
        batch = rows * spec.schedule.num_microbatches
        lines.append(f"--global-batch-size {batch}  # times the data-parallel size")
    array = "".join(f"    {line}\n" for line in lines)
    return Export({"arguments.sh": f"# {spec.sizes()}\nPIPELINE_ARGS=(\n{array})\n"}, notes)


def _group_size(spec: ExportSpec) -> int | None:
    """How many microbatches a rank runs on one stage in a row; None with one stage a rank. Refuses other orders."""
    schedule, per_rank = spec.schedule.compute_only(), spec.stages_per_rank
    if per_rank is None or not spec.is_loop:
        raise ValueError(f"Megatron places stage s on rank s % {schedule.num_ranks}, and {schedule.name} does not")
    p, m = schedule.num_ranks, schedule.num_microbatches
    if p == 1:
        raise ValueError("a pipeline of one rank has no layout; valid: ranks >= 2")
    if per_rank == 1:
        _check_same(schedule, one_f_one_b, p, m)
        return None
    group = _leading_forwards(schedule.order[0])
    _check_same(schedule, grouped_interleaved_1f1b, p, m, per_rank, group)
    return group


def _leading_forwards(order: list[Action]) -> int:
    """The forwards of its first stage that a rank begins with."""
    first = order[0].stage
    return sum(1 for _ in takewhile(lambda action: (action.stage, action.op) == (first, Op.F), order))


def _check_same(schedule: Schedule, function: object, *sizes: int) -> None:
    try:
        same = function(*sizes) == schedule  # type: ignore[operator]
    except ValueError:
        same = False
    if not same:
        raise ValueError(
            f"Megatron runs 1F1B, interleaved and grouped, and {schedule.name} is another order; "
            "valid: schedule=1f1b, interleaved_1f1b, grouped_interleaved_1f1b"
        )


def _without_names(spec: ExportSpec) -> list[str]:
    lines = [f"--pipeline-model-parallel-size {spec.schedule.num_ranks}"]
    if (per_rank := spec.stages_per_rank) != 1:
        lines.append(f"--num-virtual-stages-per-pipeline-rank {per_rank}")
    return lines


def _layout(spec: ExportSpec) -> list[str]:
    counts = _layers(spec)
    stages = ["t" * count if count <= 4 else f"t*{count}" for count in counts]
    layout = "|".join(["E" + stages[0], *stages[1:]]) + "L" if len(stages) > 1 else f"E{stages[0]}L"
    lines = [
        f"--num-layers {sum(counts)}",
        f"--pipeline-model-parallel-size {spec.schedule.num_ranks}",
        f'--pipeline-model-parallel-layout "{layout}"',
    ]
    if len(set(counts)) == 1 and counts[0]:
        instead = f"--num-layers-per-virtual-pipeline-stage {counts[0]}" if spec.stages_per_rank != 1 else "nothing"
        lines.append(f"# every stage has as many layers: in place of the layout, {instead}")
    return lines


def _layers(spec: ExportSpec) -> list[int]:
    """How many layers each stage has, where the embedding is all in the first and the head all in the last."""
    assert spec.modules is not None
    chain = [name for names in spec.modules for name in names]
    blocks = [name for name in chain if name in spec.blocks]
    if not blocks:
        raise ValueError("the model is no stack of equal blocks, which a layout counts")
    first, last = chain.index(blocks[0]), len(chain) - 1 - chain[::-1].index(blocks[-1])
    before, after = chain[:first], chain[last + 1 :]
    if chain[first : last + 1] != blocks:
        other = next(name for name in chain[first:last] if name not in blocks)
        raise ValueError(f"{other} stands between the equal blocks of the model, and a layout has no letter for it")
    if not before or not after:
        missing = "before its equal blocks, no embedding" if not before else "after its equal blocks, no head"
        raise ValueError(f"the model has nothing {missing}, and a layout has both")
    for names, at, letter in ((before, 0, "E"), (after, -1, "L")):
        if set(names) - set(spec.modules[at]):
            raise ValueError(f"{', '.join(names)} lie on several stages, and Megatron keeps them on one ({letter})")
    return [sum(name in blocks for name in names) for names in spec.modules]
