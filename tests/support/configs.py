"""Configs for tests that compose many: one composition for each choice of options, the values laid over it.

Hydra reads the files of the chosen options first and then applies values, with the function that is called here. So
what comes out is what :func:`pipezoo.config.compose.compose` gives, which tests/config/test_compose.py compares.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from pipezoo.config.compose import compose as compose_anew
from pipezoo.config.compose import groups
from pipezoo.config.overrides import key_of

VALUE = re.compile(r"[a-z]\w*(\.\w+)*=")


def compose(words: Sequence[str], config_dir: Path | None = None) -> tuple[DictConfig, dict[str, Any]]:
    """As :func:`pipezoo.config.compose.compose`, much faster where the same options were chosen before."""
    values = [word for word in words if VALUE.match(word) and key_of(word) not in groups() and "hydra" not in word]
    if config_dir is not None or not values:
        return compose_anew(words, config_dir)
    cfg, choices = deepcopy(_chosen(tuple(word for word in words if word not in values)))
    try:
        parsed = OverridesParser.create().parse_overrides(values)
        assert not any(override.is_sweep_override() for override in parsed)
        ConfigLoaderImpl._apply_overrides_to_config(parsed, cfg)
    except Exception:
        return compose_anew(words)  # which has words for it
    return cfg, choices


@cache
def _chosen(options: tuple[str, ...]) -> tuple[DictConfig, dict[str, Any]]:
    return compose_anew(options)
