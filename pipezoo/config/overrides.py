"""The words of a command line: which are options, which set keys, and how a value is written to be read back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--info", "-i", "--config-dir", "-cd", "--config-name", "-cn")
OF_TORCH = {
    "gpipe": "gpipe",
    "1f1b": "1f1b",
    "interleaved1f1b": "interleaved_1f1b",
    "loopedbfs": "looped_bfs",
    "interleavedzerobubble": "interleaved_zero_bubble",
    "zbvzerobubble": "zbv",
    "dualpipev": "dualpipev",
}  # torch's names of schedules, in small letters and without Schedule in front
OF_THIS_COMMAND_LINE = ("trust", "debug", "sweep")  # keys that a folder must not bring along


def parted(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options of a command line with their values, and its overrides."""
    options: list[str] = []
    overrides: list[str] = []
    before = ""
    for word in words:
        of_option = before in WITH_VALUE and "=" not in word
        (options if word.startswith("-") or of_option else overrides).append(word)
        before = word
    return options, overrides


def key_of(word: str) -> str:
    """The key that an override sets, adds or deletes: ``model.d_hid`` of ``+model.d_hid=8``."""
    return word.lstrip("+~").partition("=")[0]


def with_our_schedules(word: str) -> str:
    """``schedule=zbv`` of ``schedule=ZBVZeroBubble``: torch's names of schedules, in any case, under ours."""
    if key_of(word) != "schedule":
        return word
    key, equals, value = word.partition("=")
    names = [OF_TORCH.get(re.sub(r"^schedule", "", name.strip().lower()), name) for name in value.split(",")]
    return f"{key}{equals}{','.join(names)}"


def is_hydras(word: str) -> bool:
    """Whether a word is about Hydra itself, as ``hydra/launcher=joblib`` and ``+data@hydra.callbacks.x=text`` are."""
    key, _, package = key_of(word).partition("@")
    return any(name.replace("/", ".").partition(".")[0] == "hydra" for name in (key, package))


def config_dirs(words: Sequence[str]) -> list[Path]:
    """The folders of YAML files that a command line adds."""
    found = []
    for at, word in enumerate(words):
        option, _, value = word.partition("=")
        if option in ("--config-dir", "-cd"):
            found.append(Path(value or "".join(words[at + 1 : at + 2])))
    return found


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """``model.d_hid``, 512 and so on; lists are leaves, and so are empty dicts."""
    if isinstance(node, dict) and (node or not path):
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def literal(value: Any) -> str:
    """A value as Hydra's command line reads it back."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return "'" + re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + found[2].replace("'", r"\'"), value) + "'"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(literal, value)) + "]"
    return str(value)
