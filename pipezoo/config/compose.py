"""The only door to OmegaConf: a composed config goes in, plain values come out.

    conf/*.yaml + command line  --Hydra-->  DictConfig  --> ResolvedConfig     nothing past this knows of Hydra

What may stand in a config is what ``conf/config.yaml`` shows; what a part takes is what its function takes. Both are
looked up, not listed here, so that a new model or schedule needs no edit of this file.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers.oc import env

from pipezoo.config.config_errors import explain
from pipezoo.config.help import help_text
from pipezoo.config.nodes import component_of
from pipezoo.config.overrides import config_dirs, key_of, parted
from pipezoo.config.resolve import build, check_components
from pipezoo.config.resolved import GIVEN, OPTIONAL, ResolvedConfig
from pipezoo.errors import ConfigError, show
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.experiment.derive import asked_stages
from pipezoo.experiment.experiment import Experiment
from pipezoo.experiment.registry import conf_dir
from pipezoo.validators import unknown

TRUST: ContextVar[Allowlist] = ContextVar("what the command line trusts")
OF_THE_COMMAND = ("trust", "sweep")  # keys that say how to run, and describe no experiment


def load(cfg: DictConfig, choices: Mapping[str, Any], trust: Allowlist) -> Experiment:
    """The experiment that a composed config describes, its parts looked at.

    Args:
        cfg: as Hydra hands it over, interpolations and all.
        choices: which option of each group was chosen, by group.
        trust: what the command line trusts.

    Raises:
        ConfigError: one line, before anything was started. Errors that need no model are found without torch.
    """
    experiment = build(resolved_config(cfg, choices, trust))
    check_components(experiment)
    return experiment


def resolved_config(cfg: DictConfig, choices: Mapping[str, Any], trust: Allowlist) -> ResolvedConfig:
    """What a composed config says, in plain values. Raises ConfigError: an unknown key, a value that leads nowhere."""
    with trusting(trust):
        plain, shown = _plain_and_shown(cfg)
    _check_trust(plain["trust"], trust)
    raw = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(raw, dict)
    sources = {group: found for group in GIVEN if (found := _sources(raw, group))}
    values = {key: value for key, value in plain.items() if key not in OF_THE_COMMAND}
    return ResolvedConfig(values, dict(choices), trust, sources, shown)


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


def trusted_by(words: Sequence[str]) -> Allowlist:
    """What a command line trusts: packages by name, and folders of YAML files.

    Raises:
        Exception: Hydra's own, where a name cannot be read.
        ConfigError: what can never be trusted.
    """
    typed = [word for word in parted(words)[1] if key_of(word) == "trust" and "=" in word]
    names: list[str] = []
    for override in OverridesParser.create().parse_overrides(typed):
        value = [*override.sweep_string_iterator()] if override.is_sweep_override() else override.value()
        names += map(str, value if isinstance(value, list) else [] if value is None else [value])
    folders = tuple(str(path.absolute()) for path in config_dirs(words))
    return Allowlist(tuple(name for name in names if name), folders)


@contextmanager
def trusting(trust: Allowlist) -> Iterator[None]:
    """Have the interpolations of our YAML files that look at a component look at those that are trusted."""
    token = TRUST.set(trust)
    try:
        yield
    finally:
        TRUST.reset(token)


def as_composed(cfg: DictConfig) -> dict[str, Any]:
    """The config in plain values, interpolations as they were typed."""
    plain = OmegaConf.to_container(cfg, resolve=False, enum_to_str=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


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


def shown_config(cfg: DictConfig) -> dict[str, Any]:
    """The config as it is written down: resolved, but a value that came from the environment stands as it was typed."""
    return _plain_and_shown(cfg)[1]


def _plain_and_shown(cfg: DictConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    with _noting_environment() as read:
        plain = plain_config(cfg)
        return plain, _shown(cfg, plain, read) if read else plain


@cache
def keys() -> tuple[str, ...]:
    """The keys of ``conf/config.yaml``, groups included."""
    own = OmegaConf.load(conf_dir() / "config.yaml")
    assert isinstance(own, DictConfig)
    return (*GIVEN, *(str(key) for key in own if key not in ("defaults", "hydra")))


def groups() -> tuple[str, ...]:
    """What is chosen by the name of an option."""
    return (*GIVEN, *OPTIONAL, "experiment")


def _sources(raw: Mapping[Any, Any], group: str) -> dict[str, str]:
    """The arguments of a group whose value is that of another key, like ``${model.d_hid}``, with that key."""
    node = raw.get(group)
    sources = {}
    for name, value in node.items() if isinstance(node, dict) else ():
        if match := re.fullmatch(r"\$\{([a-z_]+(?:\.[a-z_]+)*)\}", str(value)):
            sources[str(name)] = match[1]
        elif str(value).startswith("${stages_") and raw.get("stages") is not None:
            sources[str(name)] = "stages"
    return sources


@contextmanager
def _noting_environment() -> Iterator[list[str]]:
    """What of this machine resolving a config reads while the block lasts: variables, the place of ``conf/``."""
    read: list[str] = []

    def noted(key: str, *default: Any) -> str | None:
        read.append(key)
        return env(key, *default)

    def noted_folder() -> str:
        read.append("conf_dir")  # another clone has it elsewhere
        return str(conf_dir())

    OmegaConf.register_new_resolver("oc.env", noted, replace=True)
    OmegaConf.register_new_resolver("conf_dir", noted_folder, replace=True)
    try:
        yield read
    finally:
        OmegaConf.register_new_resolver("oc.env", env, replace=True)
        OmegaConf.register_new_resolver("conf_dir", lambda: str(conf_dir()), replace=True)


def _shown(node: Any, plain: Any, read: list[str]) -> Any:
    raw: Any = OmegaConf.to_container(node, resolve=False)
    shown: Any = dict(plain) if isinstance(plain, dict) else list(plain)
    for key, value in raw.items() if isinstance(raw, dict) else enumerate(raw):
        if isinstance(value, (dict, list)):
            shown[key] = _shown(node[key], plain[key], read)
        elif "${" in str(value):
            read.clear()
            found = node[key]
            if OmegaConf.is_config(found):
                OmegaConf.to_container(found, resolve=True)
            shown[key] = value if read else plain[key]
    return shown


def _check_trust(asked: Any, trust: Allowlist) -> None:
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
    if match := re.fullmatch(r'KeyError raised while resolving interpolation: "(.*)"', text):
        text = f"{match[1][:1].lower()}{match[1][1:]}"
    return ConfigError(f"{key}={value}: {text}")


def _stages_asked(root: DictConfig) -> int | None:
    """The number of stages that the command line asks for, for models whose arguments follow it."""
    try:
        stages, ranks = (count if type(count := root.get(key)) is int else None for key in ("stages", "ranks"))
        node = OmegaConf.to_container(root.schedule, resolve=True)
        component = component_of("schedule", node, ResolvedConfig({}, trust=TRUST.get(Allowlist())))
        written = None if component.takes("num_ranks") else component()
        return asked_stages(component, stages, ranks, written)[0]
    except (ConfigError, OmegaConfBaseException, AttributeError):
        return None  # `load` meets the same defect, and can say what it is


def _stages_or(default: int, *, _root_: DictConfig) -> int:
    return _stages_asked(_root_) or default


def _stages_at_least(least: int, *, _root_: DictConfig) -> int:
    return max(least, _stages_asked(_root_) or least)


OmegaConf.register_new_resolver("help_text", lambda: help_text(conf_dir() / "config.yaml"), replace=True)
OmegaConf.register_new_resolver("conf_dir", lambda: str(conf_dir()), replace=True)
OmegaConf.register_new_resolver("run_token", lambda: secrets.token_hex(2), replace=True, use_cache=True)
OmegaConf.register_new_resolver("stages_or", _stages_or, replace=True)
OmegaConf.register_new_resolver("stages_at_least", _stages_at_least, replace=True)
