"""What Hydra wants done: the run that its job at hand asks for, and the sweep that it has begun."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from pipezoo.config import current_trust, settings_of, to_yaml
from pipezoo.errors import ConfigError
from pipezoo.job import Request
from pipezoo.report.printable import printable
from pipezoo.settings import Settings

SWEEP: list[Path] = []  # the folder of the sweep that this process runs


class NoteSweep(Callback):
    """Hydra's callback that tells us where a sweep goes, whichever launcher runs its jobs."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        SWEEP.append(Path(config.hydra.sweep.dir).absolute())


def request_of(cfg: DictConfig) -> Request:
    """The run that Hydra's job at hand asks for."""
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    sweep = Path(hydra.sweep.dir) if hydra.mode == RunMode.MULTIRUN else None
    if sweep is not None and not folder.resolve().is_relative_to(sweep.resolve()):
        with suppress(OSError):
            folder.rmdir()  # Hydra has made it already
        raise ConfigError(f"hydra.sweep.subdir={hydra.sweep.subdir}: leads out of the sweep's folder; valid: below it")
    settings: Settings | ConfigError
    files = {
        ".hydra/config.yaml": to_yaml(cfg),
        ".hydra/hydra.yaml": _to_yaml_without_environment(hydra),
        ".hydra/overrides.yaml": to_yaml(hydra.overrides.task),
    }
    try:
        settings = settings_of(cfg, dict(hydra.runtime.choices), current_trust())
        files["config.yaml"] = to_yaml({key: settings.shown[key] for key in settings.shown if key != "sweep"})
    except ConfigError as error:
        settings = error
    title = printable(f"[{hydra.job.num}] {' '.join(hydra.overrides.task)}") if sweep is not None else ""
    return Request(settings, folder, files, title, sweep)


def _to_yaml_without_environment(hydra: Any) -> str:
    """Hydra's own config; variables that it is to hand on (``hydra.job.env_copy``) are named, not written down."""
    plain = OmegaConf.to_container(hydra, resolve=False)
    assert isinstance(plain, dict)
    for name in plain["job"]["env_copy"]:
        plain["job"]["env_set"][name] = f"${{oc.env:{name}}}"
    return to_yaml({"hydra": plain})
