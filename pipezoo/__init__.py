"""The experiment bench of pipeline parallelism in PyTorch.

    import pipezoo as pz

    schedule = pz.schedules.zbv(4, 8)         4 ranks, 8 microbatches
    timeline = pz.simulate(schedule)          when every action runs, and what the ranks hold
    run = pz.train(model, (x, target), schedule=schedule, loss=loss, optimizer=optimizer)
                                              real training, held against one device; run.model is the trained model
    run = pz.run("model=gpt", "stages=4")     the command line as a call

Importing this package imports nothing else: each name is looked up when it is first used. It sets no signal handler.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as typing has it, without importing typing
if TYPE_CHECKING:
    from pipezoo.api.compare import compare
    from pipezoo.api.plan import plan
    from pipezoo.api.run import open_run, open_sweep, run
    from pipezoo.api.simulate import simulate
    from pipezoo.api.train import train
    from pipezoo.data.batch import Batch
    from pipezoo.errors import ConfigError, PipezooError, VerificationError
    from pipezoo.experiment.recipe import Recipe
    from pipezoo.results.run import Run
    from pipezoo.schedule.schedule import Schedule
    from pipezoo.schedules import ZOO as schedules
    from pipezoo.simulator.cost import Cost
    from pipezoo.simulator.timeline import Timeline

    __version__: str

_HOME = {
    "Schedule": "pipezoo.schedule.schedule",
    "Cost": "pipezoo.simulator.cost",
    "Timeline": "pipezoo.simulator.timeline",
    "Batch": "pipezoo.data.batch",
    "Run": "pipezoo.results.run",
    "Recipe": "pipezoo.experiment.recipe",
    "PipezooError": "pipezoo.errors",
    "ConfigError": "pipezoo.errors",
    "VerificationError": "pipezoo.errors",
    "simulate": "pipezoo.api.simulate",
    "plan": "pipezoo.api.plan",
    "train": "pipezoo.api.train",
    "run": "pipezoo.api.run",
    "open_run": "pipezoo.api.run",
    "open_sweep": "pipezoo.api.run",
    "compare": "pipezoo.api.compare",
}  # the module that defines each name

__all__ = [
    "Batch",
    "ConfigError",
    "Cost",
    "PipezooError",
    "Recipe",
    "Run",
    "Schedule",
    "Timeline",
    "VerificationError",
    "compare",
    "open_run",
    "open_sweep",
    "plan",
    "run",
    "schedules",
    "simulate",
    "train",
]


def __getattr__(name: str) -> object:
    """Look a public name up, once."""
    if name == "__version__":
        from pipezoo.installed import version

        found: object = version()
    elif name == "schedules":
        return importlib.import_module("pipezoo.schedules")  # which sets it
    elif name in _HOME:
        found = getattr(importlib.import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module 'pipezoo' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
