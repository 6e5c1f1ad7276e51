"""What Hydra wants done: the run that its job at hand asks for, and the sweep that it has begun."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from pipezoo.cli import signals
from pipezoo.cli.resume import KEY, SweepRefused, begin
from pipezoo.cli.run import OVERRIDES, Request
from pipezoo.config.compose import resolved_config, trusting
from pipezoo.config.resolve import ResolvedConfig
from pipezoo.errors import ConfigError
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.experiment.registry import conf_dir
from pipezoo.results.sanitize import printable
from pipezoo.supervisor.garbage import resume_collection


@dataclass
class Sweep:
    """A sweep that was begun: its folder, and what holds it as :func:`pipezoo.cli.folder_lock.lock_folder` does."""

    folder: Path
    holder: int

    def let_go(self) -> None:
        if self.holder:
            os.close(self.holder)
            self.holder = 0


BEGUN: ContextVar[list[Sweep]] = ContextVar("the sweeps that the command line has begun")


def run_hydra(words: Sequence[str], trust: Allowlist, perform: Callable[[Request], float], sweeps: list[Sweep]) -> None:
    """Have Hydra compose what ``words`` describe, and call ``perform`` with each run.

    Args:
        trust: what the command line trusts.
        sweeps: a sweep is put there when it begins.

    Raises:
        Exception: whatever Hydra raises, in its own words.
        SystemExit: Hydra was asked a question that it has answered, or not understood.
    """

    @hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")
    def job(cfg: DictConfig) -> float | None:
        request = request_of(cfg, trust)
        result = perform(request)
        return None if request.sweep is None else result

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us whole, and we word them
    typed, sys.argv = sys.argv, [sys.argv[0], *words]
    token = BEGUN.set(sweeps)
    try:
        with trusting(trust):
            job()
    finally:
        BEGUN.reset(token)
        sys.argv = typed


class NoteSweep(Callback):
    """Hydra's callback that tells us where a sweep goes, whichever launcher runs its jobs."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir).absolute()
        typed = config.hydra.overrides
        try:
            goes_on = goes_on_with(folder, config)
        except ConfigError as error:
            raise SweepRefused(error) from error  # Hydra would make a warning of any other
        words = as_typed(typed.task), as_typed(typed.hydra), _own_config_dirs(config.hydra)
        BEGUN.get().append(Sweep(folder, begin(folder, *words, goes_on)))
        with open_dict(config):  # which the sweeper writes down
            config.hydra.job.env_set = _named(config.hydra.job)
        if str(config.hydra.launcher._target_).endswith(".BasicLauncher"):
            _compose_once(GlobalHydra.instance().config_loader())
        else:
            signals.begin()  # its processes are to be ended in good order
        resume_collection()  # a sweep may be long


def _compose_once(loader: ConfigLoader) -> None:
    """A sweeper composes all its jobs to see whether they can be; what it composed then is what runs."""
    compose = loader.load_sweep_config
    known: dict[tuple[str, ...], Any] = {}

    def remembered(master_config: DictConfig, sweep_overrides: list[str]) -> Any:
        words = tuple(sweep_overrides)
        if words in known:
            return known.pop(words)
        known[words] = compose(master_config, sweep_overrides)
        return known[words]

    loader.load_sweep_config = remembered  # type: ignore[method-assign]


def request_of(cfg: DictConfig, trust: Allowlist) -> Request:
    """The run that Hydra's job at hand asks for."""
    own = HydraConfig.get()
    folder = Path(own.runtime.output_dir)
    sweep = Path(own.sweep.dir) if own.mode == RunMode.MULTIRUN else None
    if sweep is not None and not folder.resolve().is_relative_to(sweep.resolve()):
        with suppress(OSError):
            folder.rmdir()  # Hydra has made it already
        raise ConfigError(f"hydra.sweep.subdir={own.sweep.subdir}: leads out of the sweep's folder; valid: below it")
    goes_on = False
    words = [word for word in as_typed(own.overrides.task) if not word.startswith(KEY)]
    resolved: ResolvedConfig | ConfigError
    files: dict[str, Any] = {
        ".hydra/config.yaml": _plain(cfg),
        ".hydra/hydra.yaml": {"hydra": _without_environment(_plain(own))},
        OVERRIDES: words,
    }
    try:
        goes_on = goes_on_with(sweep, cfg)
        resolved = resolved_config(cfg, dict(own.runtime.choices), trust)
        files["config.yaml"] = {key: resolved.shown[key] for key in resolved.shown if key != "sweep"}
    except ConfigError as error:
        resolved = error
    title = printable(f"[{own.job.num}] {' '.join(words)}") if sweep is not None else ""
    return Request(resolved, folder, files, title, sweep, goes_on)


def as_typed(words: Any) -> list[str]:
    """Overrides whose interpolations, to the environment perhaps, are not looked up."""
    plain = OmegaConf.to_container(words, resolve=False)
    assert isinstance(plain, list)
    return list(map(str, plain))


def goes_on_with(sweep: Path | None, cfg: DictConfig) -> bool:
    """Whether the sweep was begun before. Raises ConfigError where a file says so."""
    resume = OmegaConf.select(cfg, KEY)
    if resume is not None and (sweep is None or Path(resume).absolute() != sweep.absolute()):
        raise ConfigError(f"{KEY}={resume}: is only taken from the command line, never from a file")
    return resume is not None


def _own_config_dirs(hydra: Any) -> list[str]:
    """The folders of YAML files that the command line added."""
    sources = hydra.runtime.config_sources
    return [str(source.path).removeprefix("file://") for source in sources if source.provider == "command-line"]


def _plain(config: Any) -> dict[str, Any]:
    """A config as composed, interpolations as they were typed."""
    plain = OmegaConf.to_container(config, resolve=False, enum_to_str=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _without_environment(hydra: dict[str, Any]) -> dict[str, Any]:
    """Hydra's own config; variables that it is to hand on (``hydra.job.env_copy``) are named, not written down."""
    return {**hydra, "job": {**hydra["job"], "env_set": _named(hydra["job"])}}


def _named(job: Any) -> dict[str, str]:
    """The variables that a job is given, those that it is handed on by their names."""
    return {**job["env_set"], **{name: f"${{oc.env:{name}}}" for name in job["env_copy"]}}
