"""Words that a person in a hurry types, and what they meant. Asked before Hydra, which answers with its grammar."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pipezoo.config.overrides import WITH_VALUE, key_of
from pipezoo.errors import ConfigError
from pipezoo.experiment.experiment import TASKS
from pipezoo.experiment.registry import conf_dir

# Hydra's options that are spelled with two dashes
OPTIONS = {"help", "hydra-help", "version", "cfg", "resolve", "package", "run", "multirun", "shell-completion"}
OPTIONS |= {"config-path", "config-name", "config-dir", "info", "experimental-rerun"}
NO_LOG = "pipezoo writes no log of Hydra's; debug=true shows tracebacks, --info what is composed from where"
NO_CHDIR = "paths are relative to where the command is typed; valid: false"


def check_words(words: Sequence[str]) -> None:
    """Raise ConfigError for the first word that is no override and no option, and say what would be one."""
    before = ""
    for at, word in enumerate(words):
        line = _of_option(word, words[at + 1 : at + 2]) if word.startswith("-") else ""
        if not word.startswith("-") and (before not in WITH_VALUE or "=" in word):
            line = _of_override(word, words[at - 1 : at] if at else [], words[at + 1 : at + 2])
        if line:
            raise ConfigError(line)
        before = word


def groups() -> dict[str, list[str]]:
    """The options of each group of ``conf/``."""
    files = sorted(conf_dir().glob("*/*.yaml"))
    found: dict[str, list[str]] = {}
    for file in files:
        found.setdefault(file.parent.name, []).append(file.stem)
    return found


def _of_option(word: str, after: Sequence[str]) -> str:
    name, equals, value = word.lstrip("-").partition("=")
    if name == "experimental-rerun":
        path = Path(value or "".join(after)).parent.parent
        return f"{word}: is Hydra's; here python -m pipezoo rerun {path} runs it again"
    if not word.startswith("--") or name in OPTIONS or not _is_key(name):
        return ""
    value = value if equals else "".join(after) or "value"
    return f"{word}: keys have no dashes; write {name}={value}"


def _of_override(word: str, before: Sequence[str], after: Sequence[str]) -> str:
    key, equals, value = word.partition("=")
    if word == "=" or (before and equals and not key):
        return f"{' '.join([*before, word, *(after if word == '=' else ())])}: has blanks around =; leave them out"
    if not equals and (after[:1] == ["="] or "".join(after[:1]).startswith("=")):
        return ""  # said at the next word
    if equals and not value and after and "=" not in after[0] and not after[0].startswith("-"):
        return f"{word} {after[0]}: has a blank after =; write {word}{after[0]}"
    if equals and value.endswith(",") and value.count("[") == value.count("]"):
        together = f"{word}{after[0]}" if after and "=" not in after[0] else word.rstrip(",")
        return f"{word}: ends with a comma; no blank after a comma: {together}"
    if equals and (value == "~" or value.startswith("~/")):
        return f"{word}: the shell leaves ~ as it is there; write {key}=$HOME{value[1:]}"
    if not equals and before and word in TASKS:
        return f"{word}: a task comes first; write it there, or task={word}"
    if not equals and not word.startswith("~"):
        if found := [group for group, options in groups().items() if word in options]:
            return f"{word}: has no key; did you mean {' or '.join(f'{group}={word}' for group in found)}?"
        return ""
    if key_of(word) == "hydra.verbose" and value.lower() != "false":
        return f"{word}: {NO_LOG}"
    if key_of(word) == "hydra.job.chdir" and value.lower() not in ("false", "null"):
        return f"{word}: {NO_CHDIR}"
    return ""


def _is_key(name: str) -> bool:
    """Whether ``name`` is a key of the main config, or a group, or leads into one."""
    first = re.split(r"[./]", name)[0]
    text = (conf_dir() / "config.yaml").read_text(encoding="utf-8")
    return first in groups() or bool(re.search(rf"^{re.escape(first)}:", text, re.MULTILINE))
