"""What a rank holds: the weights of its own stages. Those of other stages are let go before its first step.

    forked    | 0 | 1 | 2 | 3 |   pages that all ranks share with their parent; a page that is written becomes private
    rank 1    |   | 1 |   |   |   what others step never becomes its own, and is not even counted as shared

Only names, shapes and dtypes of the others are asked for later.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path

import torch
from torch import nn

from pipezoo.runtime.pipeline import Pipeline

ROLLUP = Path("/proc/self/smaps_rollup")
LARGE = 2**25  # bytes: less is not worth the time to look for it


def let_go_of_others(pipeline: Pipeline, rank: int) -> None:
    """Have this process hold no parameter that other ranks' stages alone hold; its values are NaN from now on."""
    modules, owned = pipeline.stages.modules, pipeline.stages_of(rank)
    kept = {id(parameter) for stage in owned for parameter in modules[stage].parameters()}
    others = {id(p): p for stage, module in enumerate(modules) if stage not in owned for p in module.parameters()}
    for parameter in (p for p in others.values() if id(p) not in kept and p.layout == torch.strided):
        filler = float("nan") if parameter.is_floating_point() or parameter.is_complex() else 0
        one = torch.full((), filler, dtype=parameter.dtype, device=parameter.device)
        parameter.data = one.expand(parameter.shape)


def forget_copies(model: nn.Module) -> None:
    """Free the copies of a model that nobody holds any more, so that no process that is forked has them.

    Copies of traces hold each other, and the C library keeps what is freed.
    """
    if sum(p.numel() * p.element_size() for p in model.parameters()) < LARGE:
        return
    gc.collect()
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def private_bytes() -> int | None:
    """What this process alone holds, and would be free without it; None where the system does not tell."""
    try:
        lines = ROLLUP.read_text().splitlines()[1:]
    except OSError:
        return None
    kilobytes = {words[0]: int(words[1]) for words in map(str.split, lines)}
    return 1024 * (kilobytes.get("Private_Dirty:", 0) + kilobytes.get("Private_Clean:", 0))
