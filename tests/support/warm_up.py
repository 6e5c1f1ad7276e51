"""What every command would import, parse and set up anew, done once before it is forked."""

from __future__ import annotations

import gc
import importlib
import os
import weakref
from functools import cache

WARM = (
    "multiprocessing.popen_fork",
    "multiprocessing.sharedctypes",
    "numpy.ma",  # of numpy.setdiff1d
    "pipezoo.cli.hydra_app",
    "pipezoo.cli.hydra_command",
    "pipezoo.cli.main",
    "pipezoo.cli.rerun",
    "pipezoo.cli.run",
    "pipezoo.cli.sweep",
    "pipezoo.cli.sweep_worker",
    "pipezoo.costs",
    "pipezoo.costs.unit",
    "pipezoo.data.regression",
    "pipezoo.data.text",
    "pipezoo.executors.native",
    "pipezoo.explain.__main__",
    "pipezoo.explain.of_run",
    "pipezoo.models.gpt",
    "pipezoo.models.mlp",
    "pipezoo.planner.options",
    "pipezoo.planner.search",
    "pipezoo.report.__main__",
    "pipezoo.report.choices",
    "pipezoo.report.html",
    "pipezoo.report.sweep_page",
    "pipezoo.schedules.one_f_one_b",
    "pipezoo.splitters.modules",
    "pipezoo.splitters.replay",
    "pipezoo.tasks.plan",
    "pipezoo.tasks.simulate",
    "pipezoo.tasks.train",
    "pipezoo.tasks.verify",
    "pipezoo.trackers.files",
    "rich.table",
    "sympy.tensor.tensor",
    "torch.distributed.pipelining",
)


@cache
def warm_up() -> None:
    """Import what commands use, compose, trace two models, compile pages: no thread is left, no number drawn."""
    for module in WARM:
        importlib.import_module(module)
    import torch

    from pipezoo.config.compose import compose
    from pipezoo.foreign_import import declare_operators
    from pipezoo.models import ExampleCode, MultiMLP
    from pipezoo.report.template import compile_templates
    from pipezoo.schedules import ZOO
    from pipezoo.splitters import annotated, marked

    compose(["model=multi_mlp"])
    compile_templates()
    declare_operators()
    ZOO.names()
    with torch.random.fork_rng(devices=[]):
        marked.split(ExampleCode(4, 2), 2, (torch.zeros(2, 4),))
        annotated.split(MultiMLP(4, 2), 2, (torch.zeros(2, 4),))
    keep_libraries()
    gc.collect()
    gc.freeze()


def wait_for_no_disk() -> None:
    """Have this process and its children sync nothing: no test cuts the power, a run waits for it twenty times."""
    os.fsync = lambda fd: None


def keep_libraries() -> None:
    """Have torch's 200 libraries of operators not given back, one by one, when a command ends: a tenth of its time."""
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        if (known := finalizer.peek()) and known[1].__module__ == "torch.library":
            finalizer.atexit = False
