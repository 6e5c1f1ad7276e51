"""Experiments around a model, loss, data or optimizer of a test, built without a config."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipezoo.errors import PipezooError
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.experiment.component import Component
from pipezoo.experiment.experiment import Experiment
from pipezoo.launch import Processes, Virtual
from pipezoo.results.run_dir import write_json
from pipezoo.tasks import train

WIDTH = 8
TRUST = Allowlist(("tests",))
ROLES = {"model": "torch.nn.modules.module.Module", "optimizer": "torch.optim.optimizer.Optimizer"}
GIVEN = {
    "data": ("batch_size", "seed"),
    "split": ("model", "num_stages", "example"),
    "schedule": ("num_ranks", "num_microbatches"),
    "optimizer": ("params",),
    "executor": (),
    "export": ("spec",),
    "tracker": ("folder", "config"),
    "cost": ("num_stages", "stages_per_rank"),
}

PROCESSES: dict[str, Any] = {"launch": Processes(), "launch_name": "processes"}
HOW: dict[str, dict[str, Any]] = {  # the runs in which a part of the recipe is held against one device
    "1f1b on two processes": {**PROCESSES, "num_stages": 2},
    "zbv on two processes": {**PROCESSES, "schedule": "pipezoo.schedules.zbv.zbv"},
    "by hand": {
        "schedule": ("pipezoo.schedules.from_csv.from_csv", {"file": "conf/schedule/v_shape.csv"}),
        "num_microbatches": 2,
    },
    "virtual": {},
}


def component(group: str, target: str | Callable[..., Any], **arguments: Any) -> Component:
    """A component of ``group`` that calls ``target``, a function or class of ours or of a test."""
    if not isinstance(target, str):
        target = f"{target.__module__}.{target.__qualname__}"
    name = target.rpartition(".")[2]
    return Component(group, name, target, arguments, ROLES.get(group, ""), GIVEN.get(group, ()), TRUST)


def experiment(model: Callable[..., Any], **changes: Any) -> Experiment:
    """``model`` in two stages on virtual ranks, cut between its modules, on regression data of :data:`WIDTH`.

    Args:
        changes: fields of :class:`Experiment`; for a component its target, or the target and its arguments.
    """
    components: dict[str, Any] = {
        "data": ("pipezoo.data.regression.batches", {"d_hid": WIDTH}),
        "split": "pipezoo.splitters.modules.split",
        "schedule": "pipezoo.schedules.one_f_one_b.one_f_one_b",
        "optimizer": ("torch.optim.SGD", {"lr": 0.01}),
        "loss": "torch.nn.MSELoss",
        "executor": "pipezoo.executors.native.native",
        "cost": "pipezoo.costs.unit.unit",
    }
    fields: dict[str, Any] = {"launch": Virtual(), "launch_name": "virtual", "num_stages": 2, "num_microbatches": 2}
    for name, value in changes.items():
        if name in components:
            components[name] = value
        else:
            fields[name] = value
    built = {
        group: component(group, value[0], **value[1]) if isinstance(value, tuple) else component(group, value)
        for group, value in {"model": model, **components}.items()
    }
    return Experiment(task="train", **built, **{"steps": 2, **fields})


def run(asked: Experiment, folder: Path) -> dict[str, Any]:
    """Train it in ``folder``. Raises PipezooError as the command does."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "result.json", {})
    lines: list[str] = []
    return {**train.run(asked, folder, lines.append), "lines": lines}


def ending(asked: Experiment, folder: Path) -> tuple[int, str]:
    """Its exit code, and its verdict or the line of its error."""
    try:
        result = run(asked, folder)
    except PipezooError as error:
        return error.exit_code, str(error)
    return 0, str(result["verified"])
