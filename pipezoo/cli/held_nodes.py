"""What Hydra itself runs: its callbacks, launcher, sweeper and loggers, held against what nobody but a person changes.

    hydra.callbacks   {note_sweep: ...}          as conf/config.yaml and Hydra say, or as it was typed
    hydra.launcher    {_target_: ...Basic...}    as conf/config.yaml and Hydra say, or as it was typed
    ...                                          anything else: an experiment or another YAML file says it; refused

Hydra instantiates these before anything of ours runs, so they are looked at as soon as they are composed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from pipezoo.config.overrides import is_hydras, key_of
from pipezoo.errors import ConfigError

HELD = ("callbacks", "launcher", "sweeper", "job_logging", "hydra_logging", "searchpath", "output_subdir")
NO_SWEEP = "launch=slurm: is one run; valid: -m with hydra/launcher=submitit_slurm, which makes a job for each run"
HELD_OF_JOB = ("env_set", "env_copy", "chdir")
PARAMS = "params"  # of a sweeper: which keys a sweep goes over; a committed experiment says them
AS_SHIPPED: Mapping[str, Any] = {
    "callbacks": {"note_sweep": {"_target_": "pipezoo.cli.hydra_app.NoteSweep"}},
    "launcher": {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"},
    "sweeper": {"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper", "max_batch_size": None},
    "job_logging": {"version": 1, "root": None, "disable_existing_loggers": False},
    "hydra_logging": {"version": 1, "root": None, "disable_existing_loggers": False},
    "searchpath": [],
    "output_subdir": None,
    "job.env_set": {},
    "job.env_copy": [],
    "job.chdir": False,
}  # what conf/ and Hydra come to; a test composes it


def held(hydra: Mapping[str, Any]) -> dict[str, Any]:
    """What is held of Hydra's node, in plain values, by key."""
    found = {key: hydra.get(key) for key in HELD} | {
        f"job.{key}": (hydra.get("job") or {}).get(key) for key in HELD_OF_JOB
    }
    if isinstance(found["sweeper"], dict):
        found["sweeper"] = {key: value for key, value in found["sweeper"].items() if key != PARAMS}
    return found


def check_nodes(hydra: Mapping[str, Any], as_typed: Callable[[], Mapping[str, Any]], typed: Collection[str]) -> None:
    """Refuse what was neither shipped nor typed.

    Args:
        hydra: the node as composed.
        as_typed: composes the node that the typed words alone lead to; called only where something differs.
        typed: the keys of Hydra's that were typed.

    Raises:
        ConfigError: names the node.
    """
    now = held(hydra)
    if now != AS_SHIPPED:
        allowed = held(as_typed())
        for key in now:
            if now[key] != allowed[key]:
                raise ConfigError(f"hydra.{key}: is only taken from the command line, never from a file")
    params = (hydra.get("sweeper") or {}).get(PARAMS) or {}
    for key in params:
        if is_hydras(str(key)) and key_of(str(key)) not in typed:
            raise ConfigError(f"hydra.sweeper.params.{key}: a file does not sweep over what is Hydra's own")


def check_sweep(config: Mapping[str, Any]) -> None:
    """Refuse a sweep whose runs would be more than a process each: every process would run all of it.

    Args:
        config: as composed, Hydra's own node with it.

    Raises:
        ConfigError: names the key.
    """
    if (config.get("launch") or {}).get("_target_") == "pipezoo.launch.Slurm":
        raise ConfigError(NO_SWEEP)
    launcher = config["hydra"].get("launcher") or {}
    if "submitit" not in str(launcher.get("_target_")):
        return
    for key in ("nodes", "tasks_per_node"):
        if isinstance(count := launcher.get(key), int) and count > 1:
            why = "a run of a sweep is one process, which forks its ranks; each of these would run all of it"
            raise ConfigError(
                f"hydra.launcher.{key}={count}: {why}; valid: 1, and hydra.launcher.cpus_per_task={count}"
            )
