"""What every command would import, parse and set up anew, done once before it is forked."""

from __future__ import annotations

import gc
import importlib
from functools import cache

WARM = (
    "pipezoo.cli.hydra_app",
    "pipezoo.cli.main",
    "pipezoo.cli.run",
    "pipezoo.cli.sweep_worker",
    "pipezoo.costs",
    "pipezoo.data.regression",
    "pipezoo.executors.native",
    "pipezoo.models",
    "pipezoo.planner.options",
    "pipezoo.schedules.one_f_one_b",
    "pipezoo.splitters.modules",
    "pipezoo.tasks.simulate",
    "pipezoo.tasks.train",
    "torch.distributed.pipelining",
)


@cache
def warm_up() -> None:
    """Import torch and what commands use, compose a config, trace a model: no thread is left, no number drawn."""
    for module in WARM:
        importlib.import_module(module)
    import torch

    from pipezoo.config.compose import compose
    from pipezoo.models import ExampleCode
    from pipezoo.splitters.marked import split

    compose(["model=multi_mlp"])
    with torch.random.fork_rng(devices=[]):
        split(ExampleCode(4, 2), 2, (torch.zeros(2, 4),))
    gc.collect()
    gc.freeze()
