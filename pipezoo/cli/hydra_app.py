"""What Hydra wants done: the run that its job at hand asks for, and the sweep that it has begun."""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from pipezoo.cli import signals
from pipezoo.cli.held_nodes import check_nodes, check_sweep
from pipezoo.cli.request import OVERRIDES, Request
from pipezoo.cli.resume import KEY, SweepRefused, begin
from pipezoo.config.compose import resolved_config, trusting
from pipezoo.config.overrides import is_hydras, key_of, parted
from pipezoo.config.resolved import ResolvedConfig
from pipezoo.errors import ConfigError
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.experiment.registry import conf_dir
from pipezoo.results.sanitize import printable
from pipezoo.supervisor.garbage import resume_collection
from pipezoo.supervisor.start_deadline import deadline_of_its_own, end_deadline


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
        return None if request.sweep is None else _for_the_sweeper(result, request.title)

    warnings.filterwarnings("ignore", category=FutureWarning, module="optuna")  # its plugin's calls, not the user's
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us whole, and we word them
    typed, sys.argv = sys.argv, [sys.argv[0], *words]
    token = BEGUN.set(sweeps)
    try:
        with trusting(trust), _nodes_held(frozenset(key_of(word) for word in parted(words)[1] if is_hydras(word))):
            job()
    finally:
        BEGUN.reset(token)
        sys.argv = typed


def _for_the_sweeper(objective: float, title: str) -> float:
    """The objective of a run; where it failed, the worst there is: Optuna for one ends a search at the first NaN."""
    sweeper = HydraConfig.get().sweeper
    if not math.isnan(objective) or str(sweeper._target_).endswith(".BasicSweeper"):
        return objective
    worst = -math.inf if "maximize" in str(sweeper.get("direction")).lower() else math.inf
    print(f"{title}  counts as {worst} for the sweeper", flush=True)
    return worst


@dataclass(frozen=True)
class _Held:
    """Composes, and looks at Hydra's own nodes before Hydra makes anything of them."""

    load: Callable[..., DictConfig]
    typed: frozenset[str]

    def __call__(self, config_name: str | None, overrides: list[str], *args: Any, **kwargs: Any) -> DictConfig:
        def as_typed() -> dict[str, Any]:
            words = [word for word in overrides if key_of(word) in self.typed]
            return _plain(self.load("config", words, *args, **kwargs).hydra)

        cfg = self.load(config_name, overrides, *args, **kwargs)
        check_nodes(_plain(cfg.hydra), as_typed, self.typed)
        return cfg


_LOAD: Any = ConfigLoaderImpl.load_configuration  # Hydra's own
HELD: ContextVar[frozenset[str]] = ContextVar("the keys of Hydra's own that were typed")


@contextmanager
def _nodes_held(typed: frozenset[str]) -> Iterator[None]:
    """Hold Hydra's callbacks, launcher, sweeper and loggers against what conf/ says and what was typed."""
    load = ConfigLoaderImpl.load_configuration
    token = HELD.set(typed)
    once = _Once()

    def held(self: ConfigLoaderImpl, *args: Any, **kwargs: Any) -> DictConfig:
        cfg = once(self, _Held(partial(load, self), typed), *args, **kwargs)
        if cfg.hydra.mode == RunMode.MULTIRUN:
            check_sweep(_plain(cfg))
        return cfg

    ConfigLoaderImpl.load_configuration = held  # type: ignore[method-assign]
    try:
        yield
    finally:
        ConfigLoaderImpl.load_configuration = load  # type: ignore[method-assign]
        HELD.reset(token)


class _Once:
    """Hydra composes all of a config to learn its mode, and then all of it again; what it composed first is what runs.

    The two differ where an option of a group is missing, which only a sweep may have: then there are two, as ever.
    """

    def __init__(self) -> None:
        self._known: tuple[list[str], DictConfig] | None = None

    def __call__(
        self,
        loader: ConfigLoaderImpl,
        compose: Callable[..., DictConfig],
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        known, self._known = self._known, None
        if not validate_sweep_overrides:  # Hydra asks for the mode
            with suppress(Exception):  # which is raised again below, or when it is composed to run
                cfg = compose(config_name, overrides, RunMode.RUN, from_shell, False)
                self._known = [*overrides], cfg
                return cfg
        elif known is not None and overrides in (known[0], [*known[0], f"hydra.mode={run_mode.name}"]):
            words, cfg = known
            if any("," in word or "(" in word for word in words):
                parsed = OverridesParser.create().parse_overrides(overrides)
                loader.validate_sweep_overrides_legal(parsed, run_mode, from_shell)
            if len(overrides) > len(words):
                cfg.hydra.mode = run_mode
                cfg.hydra.overrides.hydra.append(overrides[-1])
            return cfg
        return compose(config_name, overrides, run_mode, from_shell, validate_sweep_overrides)


class NoteSweep(Callback):
    """Hydra's callback that tells us where a sweep goes, whichever launcher runs its jobs."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        end_deadline()  # a sweep may have any number of runs, each of which is composed now
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
        loader = GlobalHydra.instance().config_loader()
        if str(config.hydra.launcher._target_).endswith(".BasicLauncher"):
            _compose_once(loader)
        else:
            signals.begin()  # its processes are to be ended in good order
            # the loader travels to these, and holds there, too
            held = _Held(partial(_LOAD, loader), HELD.get())
            loader.load_configuration = held  # type: ignore[method-assign]
        resume_collection()  # a sweep may be long


def _compose_once(loader: ConfigLoader) -> None:
    """A sweeper composes all its jobs to see whether they can be; what it composed then is what runs."""
    compose = loader.load_sweep_config
    known: dict[tuple[str, ...], Any] = {}

    def remembered(master_config: DictConfig, sweep_overrides: list[str]) -> Any:
        words = tuple(sweep_overrides)
        cfg = known.pop(words, None)
        if cfg is None or not OmegaConf.is_missing(cfg.hydra.job, "num"):  # a job that has run; this is another
            with deadline_of_its_own():
                cfg = known[words] = compose(master_config, sweep_overrides)
        return cfg

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
        ".hydra/hydra.yaml": {"hydra": _without_our_paths(_without_environment(_plain(own)))},
        OVERRIDES: words,
    }
    try:
        goes_on = goes_on_with(sweep, cfg)
        resolved = resolved_config(cfg, dict(own.runtime.choices), trust)
        files["config.yaml"] = {key: resolved.shown[key] for key in resolved.shown if key != "sweep"}
    except ConfigError as error:
        resolved = error
    title = printable(f"[{own.job.num}] {' '.join(words)}") if sweep is not None else ""
    return Request(resolved, folder, files, title, sweep, goes_on, _not_a_sweep(own) if sweep is None else ())


def _not_a_sweep(own: Any) -> tuple[str, ...]:
    """What to say where one run was asked for, and the experiment that was chosen is a sweep."""
    if not own.sweeper.get("params"):
        return ()
    experiment = own.runtime.choices.get("experiment")
    return (f"note      experiment={experiment} is a sweep, and this is one run of it: add -m for all of them",)


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


def _without_our_paths(node: Any) -> Any:
    """Paths below the working folder as relative ones, and those of ``conf/`` by its name: another clone has others."""
    if isinstance(node, dict):
        return {key: _without_our_paths(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_without_our_paths(value) for value in node]
    if not isinstance(node, str):
        return node
    path = node.removeprefix("file://")
    for folder, name in ((str(conf_dir()), "${conf_dir:}"), (os.getcwd(), ".")):
        if path == folder:
            return name
        if path.startswith(folder + os.sep):
            rest = path[len(folder) + 1 :]
            return rest if name == "." else f"{name}/{rest}"
    return node


def _named(job: Any) -> dict[str, str]:
    """The variables that a job is given, those that it is handed on by their names."""
    return {**job["env_set"], **{name: f"${{oc.env:{name}}}" for name in job["env_copy"]}}
