"""``executor.compile=true``: each stage goes through ``torch.compile`` in its rank, and compiles in the first step.

A compiled stage has one backward, of inputs and weights together. An order that splits backwards runs it in I
(``whole_backward.py``). What a compiled graph would not do as the stage does it is refused.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from typing import Any

import torch

from pipezoo.errors import ArgumentError
from pipezoo.runtime.executor import RankProgram
from pipezoo.runtime.hooks import has_hook_after_accumulation
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.schedule.action import Op

THREADS = "TORCHINDUCTOR_COMPILE_THREADS"  # more than one is a pool of processes, which would outlive a killed rank


def check_compiles(pipeline: Pipeline) -> None:
    """Refuse, before any process starts, what no compiled stage can do.

    Raises:
        ArgumentError: of ``compile``.
    """
    if pipeline.device == "cpu" and not (found := _compiler())[1]:
        raise _refused(f"needs a C++ compiler, and there is no {found[0]} (CXX names another)", "compile=false")
    if any(map(pipeline.defers_on, range(pipeline.stages.num_stages))):
        raise _refused("weight_grad=deferred looks into layers, which are compiled away", "weight_grad=autograd")
    for stage in range(pipeline.stages.num_stages):
        hooked = [name for name, p in pipeline.stages.parameters(stage).items() if has_hook_after_accumulation(p)]
        if hooked and splits_backwards(pipeline, stage):
            why = f"the schedule splits backwards, and the hook after accumulation of {hooked[0]} would not run"
            raise _refused(why, "a schedule of full backwards (1f1b, interleaved_1f1b, gpipe)")
    if pipeline.own_weight_gradient:
        raise _refused("weight_grad=module puts tensors down beside the graph that is compiled", "weight_grad=autograd")
    if pipeline.drawing is not None:
        name, kind = pipeline.drawing.modules[0]
        why = f"{name or kind} draws random numbers, and a compiled stage has a stream of its own"
        raise _refused(why, "dropout and noise off")


def splits_backwards(pipeline: Pipeline, stage: int) -> bool:
    """Whether the order has I and W of this stage."""
    return bool(pipeline.schedule.microbatches_in_order(stage, Op.I))


def _refused(why: str, valid: str) -> ArgumentError:
    return ArgumentError("compile", True, why, valid)


def _compiler() -> tuple[str, str | None]:
    """The compiler that torch would call, and where it is."""
    name = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    return name, shutil.which(name)


def compiled(program: RankProgram) -> RankProgram:
    """The same, its stages compiled when they first run."""
    os.environ.setdefault(THREADS, "1")
    compile_: Any = torch.compile
    stages = [replace(stage, module=compile_(stage.module), whole_backward=True) for stage in program.stages]
    return replace(program, stages=stages)
