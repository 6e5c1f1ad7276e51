"""The only door to OmegaConf: a composed config goes in, a typed and frozen Experiment comes out.

    conf/*.yaml + command line  --Hydra-->  DictConfig  --load-->  Experiment    nothing past this file knows of Hydra

What may stand in a config is what ``conf/config.yaml`` shows; what a part takes is what its function takes. Both are
looked up, not listed here, so that a new model or schedule needs no edit of this file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from pipezoo.errors import ConfigError
from pipezoo.experiment import COUNTS, Experiment
from pipezoo.explain import explain
from pipezoo.job import Request
from pipezoo.parts.part import Part, show
from pipezoo.parts.trust import Trust
from pipezoo.report.printable import printable
from pipezoo.sizes import asked_stages, derive, resolve
from pipezoo.spelling import unknown
from pipezoo.usage import help_text

# What the caller adds to each part's arguments, and the class that its target must be a subclass of.
GIVEN = {
    "model": (),
    "data": ("batch_size", "seed"),
    "split": ("model", "num_stages", "example"),
    "schedule": ("num_ranks", "num_microbatches"),
    "optimizer": ("params",),
    "loss": (),
    "cost": ("num_stages", "stages_per_rank"),
    "launch": (),
    "plan": (),
    "checkpoint": (),
}
OPTIONAL = ("fault",)  # groups that may have no option chosen
ROLES = {
    "model": "torch.nn.modules.module.Module",
    "optimizer": "torch.optim.optimizer.Optimizer",
    "loss": "torch.nn.modules.module.Module",
}
WITH_MODEL = ("train", "verify")  # tasks that need every part; the others need a schedule and its cost
NOT_NUMBERS = (
    "task",
    "launch",
    "checkpoint",
    "cost",
    "plan",
    "verify",
    "tolerance",
    "record_steps",
    "objective",
    "on_nonfinite",
    "debug",
)


def conf_dir() -> Path:
    """The folder of the YAML files: beside the package in a clone, inside it where a wheel was installed."""
    here = Path(__file__).resolve().parent
    clone = here.parent / "conf"
    if (here.parent / "pyproject.toml").is_file() and (clone / "config.yaml").is_file():
        return clone
    return here / "conf"


def load(cfg: DictConfig, choices: Mapping[str, Any], trust: Trust) -> Experiment:
    """The experiment that a composed config describes.

    Args:
        cfg: as Hydra hands it over, interpolations and all.
        choices: which option of each group was chosen, by group.
        trust: what the command line trusts.

    Raises:
        ConfigError: one line, before anything was started. Errors that need no model are found without torch.
    """
    plain = plain_config(cfg)
    _check_trust(plain.pop("trust"), trust)
    groups = [*GIVEN, *(group for group in OPTIONAL if group in plain)]
    parts = {group: _part(group, plain.pop(group), choices, trust, _sources(cfg, group)) for group in groups}
    launch, checkpoint, fault = parts.pop("launch"), parts.pop("checkpoint"), parts.pop("fault", None)
    values: dict[str, Any] = {COUNTS.get(key, key): value for key, value in plain.items()}
    values |= parts | {"launch": launch(), "launch_name": launch.choice, "config_hash": config_hash(plain, parts)}
    values |= {"checkpoint": checkpoint(), "fault": fault and fault()}
    experiment = Experiment(**values)
    for group in ("schedule", "cost"):
        parts[group].check()
    if experiment.task == "plan":
        parts["plan"]()
    if experiment.task in WITH_MODEL:
        asked = derive(experiment)
        if asked.num_stages is not None:
            resolve(experiment, asked, asked.num_stages)
        for part in parts.values():
            part.check()
    return experiment


def compose(words: Sequence[str], config_dir: Path | None = None) -> tuple[DictConfig, dict[str, Any]]:
    """The config that a command line describes, and the chosen options by group. Raises ConfigError."""
    if config_dir is not None:
        words = [*words, f"hydra.searchpath=[file://{config_dir.absolute()}]"]
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            cfg = hydra_compose("config", list(words), return_hydra_config=True)
    except Exception as error:
        raise explain(error, words, [conf_dir()]) or error from error
    choices = dict(cfg.hydra.runtime.choices)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, choices


def plain_config(cfg: DictConfig) -> dict[str, Any]:
    """The config as plain values, interpolations resolved, keys checked."""
    known = keys()
    for key in map(str, cfg):
        if key not in (*known, *OPTIONAL):
            raise ConfigError(f"{key}={_typed(cfg, key)}: {unknown('key', key, known)}")
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise _unresolved(cfg, error) from error
    assert isinstance(plain, dict)
    if gone := [key for key in known if key not in plain]:
        raise ConfigError(f"{gone[0]}: was deleted, and a run needs it")
    return {str(key): value for key, value in plain.items()}


@cache
def keys() -> tuple[str, ...]:
    """The keys of ``conf/config.yaml``, groups included."""
    own = OmegaConf.load(conf_dir() / "config.yaml")
    assert isinstance(own, DictConfig)
    return (*GIVEN, *(str(key) for key in own if key not in ("defaults", "hydra")))


def config_hash(values: Mapping[str, Any], parts: Mapping[str, Part]) -> str:
    """A hash of what determines the numbers of a run; the same for the same config in another checkout."""
    content = {key: value for key, value in values.items() if key not in NOT_NUMBERS}
    content |= {group: [part.target, part.arguments] for group, part in parts.items() if group not in NOT_NUMBERS}
    text = json.dumps(content, sort_keys=True, default=str).replace(str(conf_dir()), "conf")
    return hashlib.sha256(text.encode()).hexdigest()


def fresh_folder() -> Path:
    """Where a run goes that was not told where: a folder of its own."""
    return Path("outputs") / time.strftime("%Y-%m-%d") / f"{time.strftime('%H-%M-%S')}-{secrets.token_hex(2)}"


def to_yaml(config: Any) -> str:
    """A config, or plain values, as YAML in their own order."""
    return OmegaConf.to_yaml(config if OmegaConf.is_config(config) else OmegaConf.create(config))


SWEEP: list[Path] = []  # the folder of the sweep that this process runs


class NoteSweep(Callback):
    """Hydra's callback that tells us where a sweep goes, whichever launcher runs its jobs."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        SWEEP.append(Path(config.hydra.sweep.dir).absolute())


def is_sweep() -> bool:
    """Whether the job at hand is one of a sweep."""
    return HydraConfig.get().mode == RunMode.MULTIRUN


def title() -> str:
    """What tells this job of a sweep from the others."""
    hydra = HydraConfig.get()
    return printable(f"[{hydra.job.num}] {' '.join(hydra.overrides.task)}")


def request_of(cfg: DictConfig) -> Request:
    """The run that Hydra's job at hand asks for."""
    hydra = HydraConfig.get()
    choices = dict(hydra.runtime.choices)
    keys()  # once for all jobs of a sweep
    folder = Path(hydra.runtime.output_dir)
    if is_sweep() and not folder.resolve().is_relative_to(Path(hydra.sweep.dir).resolve()):
        with suppress(OSError):
            folder.rmdir()  # Hydra has made it already
        raise ConfigError(f"hydra.sweep.subdir={hydra.sweep.subdir}: leads out of the sweep's folder; valid: below it")

    def files() -> dict[str, str]:
        return {
            "config.yaml": to_yaml(plain_config(cfg)),
            ".hydra/config.yaml": to_yaml(cfg),
            ".hydra/hydra.yaml": to_yaml({"hydra": hydra}),
            ".hydra/overrides.yaml": to_yaml(hydra.overrides.task),
        }

    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    warm = ("torch.distributed.pipelining",) if plain.get("task") in WITH_MODEL else ()
    return Request(
        lambda: load(cfg, choices, current_trust()),
        folder,
        files,
        str(plain.get("objective")),
        plain.get("debug") is True,
        warm,
    )


def _part(
    group: str, node: Any, choices: Mapping[str, Any], trust: Trust, sources: Mapping[str, str] | None = None
) -> Part:
    choice = str(choices.get(group) or "?")
    if not isinstance(node, dict):
        raise ConfigError(f"{group}={show(node)}: must be an option of the group, chosen with {group}=")
    arguments = {str(name): value for name, value in node.items()}
    target = arguments.pop("_target_", None)
    if not isinstance(target, str):
        raise ConfigError(f"{group}._target_={show(target)}: must be the dotted name of a function or a class")
    return Part(group, choice, target, arguments, ROLES.get(group, ""), GIVEN.get(group, ()), trust, sources or {})


def _sources(cfg: DictConfig, group: str) -> dict[str, str]:
    """The arguments of a group whose value is that of another key, like ``${model.d_hid}``, with that key."""
    raw = OmegaConf.to_container(cfg, resolve=False)
    node = raw.get(group) if isinstance(raw, dict) else None
    sources = {}
    for name, value in node.items() if isinstance(node, dict) else ():
        if match := re.fullmatch(r"\$\{([a-z_]+(?:\.[a-z_]+)*)\}", str(value)):
            sources[str(name)] = match[1]
        elif str(value).startswith("${stages_") and cfg.get("stages") is not None:
            sources[str(name)] = "stages"
    return sources


def _check_trust(asked: Any, trust: Trust) -> None:
    """Whatever a file says about trust is refused; the command line was read before any file."""
    names = [asked] if isinstance(asked, str) else asked or []
    if extra := [name for name in names if name not in trust.packages]:
        raise ConfigError(f"trust={extra[0]}: is only taken from the command line, never from a file")


def _typed(cfg: DictConfig, key: str) -> str:
    raw = OmegaConf.to_container(cfg, resolve=False)
    value = raw.get(key) if isinstance(raw, dict) else None
    return "{...}" if isinstance(value, dict) else show(value)


def _unresolved(cfg: DictConfig, error: OmegaConfBaseException) -> ConfigError:
    """A value that is missing, or that refers to something that is not there."""
    key = str(error.full_key or "?")
    parent, _, name = key.rpartition(".")
    holder = OmegaConf.select(cfg, parent) if parent else cfg
    node = holder._get_node(name) if isinstance(holder, DictConfig) else None
    value = getattr(node, "_value", lambda: None)()
    if value == "???":
        return ConfigError(f"{key}: is missing; give it a value")
    text = str(error).splitlines()[0]
    if match := re.fullmatch(r"Interpolation key '(.*)' not found", text):
        return ConfigError(f"{key}={value}: there is no {match[1]}; give {key} a value")
    return ConfigError(f"{key}={value}: {text}")


def _stages_asked(root: DictConfig) -> int | None:
    """The number of stages that the command line asks for, for models whose arguments follow it."""
    try:
        stages, ranks = (count if type(count := root.get(key)) is int else None for key in ("stages", "ranks"))
        node = OmegaConf.to_container(root.schedule, resolve=True)
        part = _part("schedule", node, {}, current_trust())
        written = None if part.takes("num_ranks") else part()
        return asked_stages(part, stages, ranks, written)[0]
    except (ConfigError, OmegaConfBaseException, AttributeError):
        return None  # `load` meets the same defect, and can say what it is


def _stages_or(default: int, *, _root_: DictConfig) -> int:
    return _stages_asked(_root_) or default


def _stages_at_least(least: int, *, _root_: DictConfig) -> int:
    return max(least, _stages_asked(_root_) or least)


def current_trust() -> Trust:
    """What this process's command line trusts; the processes it starts inherit it."""
    said = json.loads(os.environ.get("PIPEZOO_TRUST", "{}"))
    return Trust(tuple(said.get("packages", ())), bool(said.get("third_party")))


OmegaConf.register_new_resolver("help_text", lambda: help_text(conf_dir() / "config.yaml"), replace=True)
OmegaConf.register_new_resolver("conf_dir", lambda: str(conf_dir()), replace=True)
OmegaConf.register_new_resolver("run_token", lambda: secrets.token_hex(2), replace=True, use_cache=True)
OmegaConf.register_new_resolver("stages_or", _stages_or, replace=True)
OmegaConf.register_new_resolver("stages_at_least", _stages_at_least, replace=True)
