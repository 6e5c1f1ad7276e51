"""A folder is data: of what ``sweep.json``, ``overrides.yaml`` and ``config.yaml`` of a folder say, values alone pass.

steps=20   +fault=kill   ~model.splits   model=gpt     pass: values of known keys
trust=...  debug=...     sweep.resume=...              are left out: they belong to one command line
hydra/launcher=...  --config-dir=...  +x@hydra.y=...   are refused: only a person types these
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipezoo.config.overrides import OF_THIS_COMMAND_LINE
from pipezoo.errors import ConfigError

NAME = r"[A-Za-z_]\w*(?:[./][\w]+)*"
WORD = re.compile(rf"(?:~|\+{{0,2}})(?P<key>{NAME})(?:@(?P<package>{NAME}))?(?P<value>=.*)?", re.DOTALL)


def values_alone(words: object, said_by: str, keys: Iterable[str], groups: Iterable[str]) -> list[str]:
    """The words of a folder that may be typed again.

    Args:
        words: what a file holds, a list of texts if it is what we wrote.
        said_by: the file, for the error.
        keys: of ``conf/config.yaml``, groups included.
        groups: those of them that are chosen by the name of an option.

    Raises:
        ConfigError: a word that is no value of a known key.
    """
    if not isinstance(words, list):
        raise ConfigError(f"{said_by}: is not a list of key=value")
    return [word for word in map(str, words) if _passes(word, said_by, {*keys}, {*groups})]


def option_alone(group: object, option: object, said_by: str, groups: Iterable[str]) -> str:
    """The word that chooses an option of a group, as a folder says. Raises ConfigError."""
    word = f"{group}={option}"
    if group not in {*groups} or not re.fullmatch(r"[\w./-]+", str(option)):
        raise ConfigError(f"{said_by}: {word!r}: is not an option of a known group")
    _passes(word, said_by, {*groups}, {*groups})
    return word


def is_value_of(path: str, keys: Iterable[str]) -> bool:
    """Whether ``path``, like ``model.d_hid``, leads to a value of a known key that a folder may set."""
    found = re.fullmatch(NAME, path) is not None and "/" not in path
    return found and path.partition(".")[0] in {*keys} - {*OF_THIS_COMMAND_LINE}


def _passes(word: str, said_by: str, keys: set[str], groups: set[str]) -> bool:
    found = WORD.fullmatch(word)
    root = re.split(r"[./]", found["key"])[0] if found else ""
    if root == "hydra" or word.startswith("-"):
        raise ConfigError(f"{said_by}: {word!r}: only the command line says this, never a folder")
    if root in OF_THIS_COMMAND_LINE:
        return False
    package = re.split(r"[./]", found["package"] or root)[0] if found else ""
    if found is None or root not in keys or package not in keys or "/" in found["key"]:
        raise ConfigError(f"{said_by}: {word!r}: is not a value of a known key, and a folder brings nothing else")
    value = (found["value"] or "=")[1:]
    if found["key"] in groups and (".." in value or re.search(r"(^|[,'\"\[(])\s*/", value)):
        raise ConfigError(f"{said_by}: {word!r}: leads out of conf/")
    return True
