"""For torchtitan: the order as a file, and its ``parallelism`` settings with the modules of every stage.

    schedule.csv        the order, which torchtitan hands to torch's schedule runtime
    parallelism.py      ParallelismConfig(...), as torchtitan's main branch takes it (read at b5bcd76, August 2026)
    parallelism.toml    the same for its releases with TOML configs (read at v0.2.2)

torchtitan builds the stages of a rank from the *name* of a schedule before it reads the file: a loop, or a V of two
stages a rank. So the name below stands for the placement alone, and no other placement can be had.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from pipezoo.exports.spec import Export, ExportSpec
from pipezoo.validators import unknown_word

Names = tuple[tuple[str, ...], ...]

_PYTHON = """# {sizes}
# For torchtitan's main branch (read at b5bcd76, August 2026): an argument of Trainer.Config.
parallelism=ParallelismConfig(
    pipeline_parallel_degree={ranks},
    pipeline_parallel_schedule="{name}",  # places the stages; the order is the file's
    pipeline_parallel_schedule_csv="schedule.csv",  # its path as the ranks see it
    num_pp_microbatches={microbatches},
{modules})
"""

_TOML = """# {sizes}
# For torchtitan's releases with TOML configs (read at v0.2.2).
[parallelism]
pipeline_parallel_degree = {ranks}
pipeline_parallel_schedule = "{name}"  # places the stages; the order is the file's
pipeline_parallel_schedule_csv = "schedule.csv"  # its path as the ranks see it
pipeline_parallel_microbatch_size = {rows}
{modules}
[training]
local_batch_size = {batch}  # {microbatches} microbatches
"""


def torchtitan(spec: ExportSpec, rename: dict[str, str] | None = None) -> Export:
    """The files above.

    Args:
        rename: what torchtitan's model calls the outermost modules of ours: ``{"blocks": "layers"}`` makes
            ``layers.0`` of ``blocks.0``.

    Raises:
        ValueError: torchtitan cannot place the stages so, or ``rename`` has a name that the model has not.
    """
    schedule, per_rank = spec.schedule, spec.stages_per_rank
    if per_rank is None:
        raise ValueError(
            f"torchtitan places stages in a loop or as a V of two on each rank, and {schedule.name} has them on ranks "
            f"{', '.join(map(str, schedule.stage_to_rank))}"
        )
    rows = spec.rows or 1
    values = {
        "sizes": spec.sizes(),
        "ranks": schedule.num_ranks,
        "microbatches": schedule.num_microbatches,
        "name": _placing_name(spec, per_rank),
        "rows": rows,
        "batch": rows * schedule.num_microbatches,
    }
    names = None if spec.modules is None else _renamed(spec.modules, rename or {})
    files = {
        "schedule.csv": schedule.compute_only().to_csv(),
        "parallelism.py": _PYTHON.format(modules=_in_python(names), **values),
        "parallelism.toml": _TOML.format(modules=_in_toml(names), **values),
    }
    return Export(files, _notes(spec, per_rank))


def _placing_name(spec: ExportSpec, per_rank: int) -> str:
    if spec.is_loop:
        return "1F1B" if per_rank == 1 else "Interleaved1F1B"
    return "ZBVZeroBubble" if spec.schedule.overlap is None else "DualPipeV"


def _renamed(modules: Names, rename: dict[str, str]) -> Names:
    outer = {name.partition(".")[0] for names in modules for name in names}
    for name in rename:
        if name not in outer:
            raise unknown_word(f"rename.{name}", rename[name], "module", outer, name)

    def new(name: str) -> str:
        first, dot, rest = name.partition(".")
        return rename.get(first, first) + dot + rest

    return tuple(tuple(map(new, names)) for names in modules)


def _in_python(names: Sequence[Sequence[str]] | None) -> str:
    if names is None:
        return ""
    lines = "".join(f"        {json.dumps(own)},\n" for own in names)
    return f"    module_fqns_per_model_part=[\n{lines}    ],\n"


def _in_toml(names: Sequence[Sequence[str]] | None) -> str:
    if names is None:
        return ""
    lines = "".join(f"    {json.dumps(own)},\n" for own in names)
    return f"module_fqns_per_model_part = [\n{lines}]\n"


def _notes(spec: ExportSpec, per_rank: int) -> tuple[str, ...]:
    notes = []
    if spec.modules is None:
        notes.append(f"no module_fqns_per_model_part: {spec.unnamed}")
        if per_rank > 2:
            notes.append(f"without it torchtitan makes 2 stages a rank, not {per_rank}: set it by hand")
    if spec.rows is None:
        notes.append("pipeline_parallel_microbatch_size is 1: no batch was made")
    return tuple(notes)
