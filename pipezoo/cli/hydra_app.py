"""What Hydra wants done: the run that its job at hand asks for, and the sweep that it has begun."""

from __future__ import annotations

import gc
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from pipezoo.cli.resume import KEY, SweepRefused, begin
from pipezoo.cli.run import Request
from pipezoo.config.compose import current_trust, resolved_config
from pipezoo.config.resolve import ResolvedConfig
from pipezoo.errors import ConfigError
from pipezoo.results.sanitize import printable

SWEEP: list[Path] = []  # the folder of the sweep that this process runs
HOLDERS: list[int] = []  # what holds it, until this process ends


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
        HOLDERS.append(begin(folder, *words, goes_on))
        SWEEP.append(folder)
        with open_dict(config):  # which the sweeper writes down
            config.hydra.job.env_set = _named(config.hydra.job)
        if str(config.hydra.launcher._target_).endswith(".BasicLauncher"):
            _compose_once(GlobalHydra.instance().config_loader())
        gc.freeze()
        gc.enable()  # a sweep may be long


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


def request_of(cfg: DictConfig) -> Request:
    """The run that Hydra's job at hand asks for."""
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    sweep = Path(hydra.sweep.dir) if hydra.mode == RunMode.MULTIRUN else None
    if sweep is not None and not folder.resolve().is_relative_to(sweep.resolve()):
        with suppress(OSError):
            folder.rmdir()  # Hydra has made it already
        raise ConfigError(f"hydra.sweep.subdir={hydra.sweep.subdir}: leads out of the sweep's folder; valid: below it")
    goes_on = False
    words = [word for word in as_typed(hydra.overrides.task) if not word.startswith(KEY)]
    resolved: ResolvedConfig | ConfigError
    files: dict[str, Any] = {
        ".hydra/config.yaml": _plain(cfg),
        ".hydra/hydra.yaml": {"hydra": _without_environment(_plain(hydra))},
        ".hydra/overrides.yaml": words,
    }
    try:
        goes_on = goes_on_with(sweep, cfg)
        resolved = resolved_config(cfg, dict(hydra.runtime.choices), current_trust())
        files["config.yaml"] = {key: resolved.shown[key] for key in resolved.shown if key != "sweep"}
    except ConfigError as error:
        resolved = error
    title = printable(f"[{hydra.job.num}] {' '.join(words)}") if sweep is not None else ""
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
