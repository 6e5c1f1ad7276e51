"""Every schedule of ``conf/schedule`` as (name, function, arguments), read without Hydra."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import yaml

CONF = Path(__file__).parents[2] / "conf"


def node(name):
    return yaml.safe_load((CONF / "schedule" / f"{name}.yaml").read_text())


def function(name):
    module, _, attribute = node(name)["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), attribute)


NAMES = sorted(path.stem for path in (CONF / "schedule").glob("*.yaml"))
GENERATED = [name for name in NAMES if "num_ranks" in inspect.signature(function(name)).parameters]
FILES = [name for name in NAMES if "file" in node(name) and node(name)["file"] != "???"]


def file(name):
    return node(name)["file"].replace("${conf_dir:}", str(CONF))
