"""What Hydra says about a config it cannot compose, as one line in the user's spelling.

Hydra and OmegaConf are read by the attributes of their exceptions, not imported: this file only words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pipezoo.errors import ConfigError
from pipezoo.spelling import unknown


def explain(error: BaseException, words: Sequence[str], folders: Sequence[Path]) -> ConfigError | None:
    """One line for what was raised while a config was composed, or None for an error of another kind.

    Args:
        error: what Hydra raised.
        words: the command line.
        folders: where YAML files are looked for.
    """
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    kinds = {type(link).__name__: link for link in reversed(chain)}
    if (bad := next((link for link in chain if hasattr(link, "problem_mark")), None)) is not None:
        return ConfigError(_of_yaml(bad))
    if missing := kinds.get("MissingConfigException"):
        return ConfigError(_of_missing(missing, folders))
    if wrong := kinds.get("OverrideParseException"):
        return ConfigError(_of_override(str(getattr(wrong, "override", "")), str(error)))
    text = " ".join(str(error).split())
    if "Ambiguous value" in text:
        word = _between(text, "'", "'")
        return ConfigError(f"{word}: several values need -m, which sweeps over them; a list is written [a,b]")
    if "config group" in text.lower() and "NoneType" in text:
        return ConfigError(f"{_word_with(words, '=null')}: a group needs one of its options")
    if (key := _between(text, "Could not override '", "'")) or (key := _between(text, "Could not append to config", "")):
        keyed = next((link for link in chain if getattr(link, "full_key", None)), None)
        return ConfigError(_of_key(key, keyed, words))
    if "already at" in text:
        return ConfigError(f"{_word_with(words, '+')}: is there already; write it without +")
    if "Additional config directory" in text:
        return ConfigError(f"--config-dir={_between(text, repr(''), '') or _between(text, chr(39), chr(39))}: no such folder")
    if not _of_hydra(chain):
        return None
    return ConfigError(text.partition(" See https://")[0][:400])


def _of_hydra(chain: Sequence[BaseException]) -> bool:
    return any(type(link).__module__.split(".")[0] in ("hydra", "omegaconf", "antlr4", "yaml") for link in chain)


def _of_yaml(error: BaseException) -> str:
    mark = error.problem_mark  # type: ignore[attr-defined]
    problem = getattr(error, "problem", None) or "is not YAML"
    return f"{mark.name}:{mark.line + 1}:{mark.column + 1}: {problem}"


def _of_missing(error: BaseException, folders: Sequence[Path]) -> str:
    name = str(getattr(error, "missing_cfg_file", "") or "")
    group, _, option = name.rpartition("/")
    for folder in folders:
        if (file := folder / f"{name}.yml").is_file():
            return f"{group}={option}: {file} is not read; rename it to {file.stem}.yaml"
    options = getattr(error, "options", None)
    if options is None:
        return f"{group or 'config'}={option}: there is no such file; {' '.join(str(error).split())[:200]}"
    return f"{group}={option}: {unknown(group, option, options)}"


def _of_override(override: str, text: str) -> str:
    if "missing EQUAL" in text:
        return f"{override}: has no value; write {override}=value"
    reason = text.splitlines()[0].partition("See https")[0].strip()
    return f"{override}: cannot be read ({reason}); quote values with special characters: 'key=\"value\"'"


def _of_key(key: str, error: BaseException | None, words: Sequence[str]) -> str:
    typed = next((word for word in words if word.lstrip("+~").partition("=")[0].partition("@")[0] == key), key)
    parent = getattr(error, "parent_node", None)
    names = [str(name) for name in parent] if hasattr(parent, "keys") else []
    prefix, _, last = key.rpartition(".")
    names = [name for name in names if not name.startswith("_") and (prefix or name != "hydra")]
    if prefix and not names:
        return f"{typed}: {prefix} has no keys of its own"
    if not prefix:
        names = sorted({*names, "experiment", "hydra"} - {""})
    return f"{typed}: {unknown('key', last, names)}"


def _between(text: str, left: str, right: str) -> str:
    match = re.search(re.escape(left) + "(.*?)" + re.escape(right), text) if right else None
    return match[1] if match else ""


def _word_with(words: Sequence[str], mark: str) -> str:
    return next((word for word in words if mark in word), " ".join(words))
