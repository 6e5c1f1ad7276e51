"""Which task uses which key, and the keys that were typed for nothing.

    task=train cost.F=99      ->   note      cost.F=99 has no effect on task=train

A key that is not typed is never mentioned: every config has all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipezoo.config.overrides import key_of
from pipezoo.experiment.experiment import TASKS, Experiment

TRAINS, PLANS, COSTS = ("train", "verify"), ("plan",), ("simulate", "plan")
MEASURED = "cost=measured"  # a task that measures its costs trains for them
DEVICES = "pipezoo.planner.devices.options.DeviceOptions"  # plan=devices, which knows none of the others
OF_DEVICES = ("task", "plan", "topology", "objective", "debug", "trust", "sweep", "hydra", "experiment")
OF_LINKS = ("cost.p2p", "cost.ranks_per_node", "cost.latency", "cost.bandwidth")  # a topology has links of its own
PLACED = "topology="  # a task that says where the processes of the grid stand, or measures them
EMULATED = "launch.emulate=true"  # a training whose actions take what the cost says

# key or group -> the tasks that use it, and in what case the others do
USED_BY: dict[str, tuple[tuple[str, ...], str]] = {
    **dict.fromkeys(("task", "stages", "ranks", "microbatches", "model", "schedule", "export"), (TASKS, "")),
    **dict.fromkeys(("objective", "debug", "trust", "sweep", "hydra", "experiment"), (TASKS, "")),
    **dict.fromkeys(("data", "split", "loss", "optimizer", "batch_size", "seed"), (TRAINS + PLANS, MEASURED)),
    "mesh": (TRAINS, PLACED),
    **dict.fromkeys(("launch", "executor", "dtype", "precision", "device", "weight_grad"), (TRAINS, MEASURED)),
    **dict.fromkeys(("steps", "resume", "tolerance", "on_nonfinite", "record_steps"), (TRAINS, "")),
    **dict.fromkeys(("checkpoint", "eval", "fault", "lr_schedule", "tracker", "profile"), (TRAINS, "")),
    "verify": (("train",), ""),
    "cost": (COSTS, EMULATED),
    "plan": (PLANS, ""),
    "topology": (COSTS, ""),
}


def typed_for_nothing(words: Sequence[str], experiment: Experiment) -> list[str]:
    """The words of the command line that the experiment's task does not use, as they were typed."""
    measured = experiment.cost.target == "pipezoo.costs.profiled.measured" and experiment.task in COSTS
    holds = {
        "": False,
        MEASURED: measured,
        PLACED: measured or (experiment.topology is not None and experiment.task in COSTS),
        EMULATED: experiment.launch.emulate and experiment.task in TRAINS,
    }
    devices = experiment.task == "plan" and experiment.plan.target == DEVICES

    def is_idle(word: str) -> bool:
        group = _group_of(word)
        if devices and group not in OF_DEVICES:
            return True
        if experiment.topology is not None and key_of(word).startswith(OF_LINKS):
            return True
        tasks, case = USED_BY.get(group, (TASKS, ""))
        return experiment.task not in tasks and not holds[case]

    return [word for word in words if is_idle(word)]


def notes(words: Sequence[str], experiment: Experiment) -> list[str]:
    """One line for each of :func:`typed_for_nothing`."""
    return [
        f"note      {word.lstrip('+')} has no effect on task={experiment.task}"
        for word in typed_for_nothing(words, experiment)
    ]


def _group_of(word: str) -> str:
    """``cost`` of ``cost.F=99``, ``cost=unit`` and ``+cost/inner=x``."""
    return key_of(word).partition(".")[0].partition("/")[0]
