"""What Hydra says about a config it cannot compose, as one line in the user's spelling.

Hydra and OmegaConf are read by the names and attributes of their exceptions, not imported: this file only words.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipezoo.errors import ConfigError
from pipezoo.installed import conf_dir
from pipezoo.results.renamed import new_key
from pipezoo.validators import unknown

COMPOSERS = ("hydra", "omegaconf", "antlr4", "yaml")
STAGES = ("splits", "num_stages", "stages")
SYNONYMS = (  # of one thing, as models of other people call it
    ("n_layers", "depth", "n_layer", "num_layers", "layers", "num_hidden_layers", "blocks"),
    ("d_hid", "width", "dim", "hidden", "hidden_size", "d_model", "n_embd", "embed_dim"),
    ("heads", "n_head", "n_heads", "num_heads", "num_attention_heads"),
    ("context", "block_size", "seq_len", "sequence_length", "max_position_embeddings"),
)
QUOTING = "quote a value with special characters: 'key=\"a,b\"'"


def explain(error: BaseException, words: Sequence[str], folders: Sequence[Path]) -> ConfigError | None:
    """One line for what was raised while a config was composed, or None for an error of another kind.

    Args:
        error: what Hydra raised.
        words: the command line.
        folders: where YAML files are looked for.
    """
    chain = _chain(error)
    kinds = {type(link).__name__: link for link in reversed(chain)}
    text = " ".join(str(error).split())
    if line := _of_yaml(chain):
        return ConfigError(line)
    if missing := kinds.get("MissingConfigException"):
        return ConfigError(_of_missing(missing, folders, words))
    if wrong := kinds.get("OverrideParseException"):
        return ConfigError(_of_override(str(getattr(wrong, "override", "")), text))
    if word := _quoted_after("Ambiguous value for argument ", text):
        return ConfigError(f"{word}: several values need -m, which sweeps over them; {QUOTING}")
    if "Config group override must be" in text:
        word = next((word for word in words if word.partition("=")[2] in ("", "null")), "group=null")
        return ConfigError(f"{word}: a group needs one of its options")
    if key := _quoted_after("Could not override ", text):
        return ConfigError(_of_key(key, chain, words))
    if key := _quoted_after("An item is already at ", text):
        return ConfigError(f"{_typed(key, words)}: the key is there already; write it without +")
    if folder := _quoted_after("Additional config directory ", text):
        return ConfigError(f"--config-dir={folder}: there is no such folder")
    if any(type(link).__module__.partition(".")[0] in COMPOSERS for link in chain):
        return ConfigError(text.partition(" See https://")[0][:400])
    return None


def _chain(error: BaseException) -> list[BaseException]:
    """The error, and what caused it, and what caused that ..."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    return chain


def _of_yaml(chain: Sequence[BaseException]) -> str:
    for error in chain:
        if (mark := getattr(error, "problem_mark", None)) is not None:
            problem = getattr(error, "problem", None) or "is not YAML"
            return f"{mark.name}:{mark.line + 1}:{mark.column + 1}: {problem}"
    return ""


def _of_missing(error: BaseException, folders: Sequence[Path], words: Sequence[str]) -> str:
    name = str(getattr(error, "missing_cfg_file", None) or "config")
    group, _, option = name.rpartition("/")
    for folder in folders:
        if os.path.isfile(file := folder / f"{name}.yml"):  # not Path's, which raises where a name is too long
            return f"{group}={option}: {file} is not read; rename it to {file.stem}.yaml"
    typed = next((word for word in words if "${" in word and name.startswith(word.partition("=")[0] + "/")), "")
    if typed:  # what it leads to may come from the environment
        return f"{typed}: leads to no option of the group; write its name"
    options = getattr(error, "options", None)
    if not options or not group:
        return f"{group or 'config'}={option}: there is no {name}.yaml"
    return f"{group}={option}: {unknown(group, option, options)}"


def _of_override(override: str, text: str) -> str:
    if "missing EQUAL" in text:
        return f"{override}: has no value; write {override}=value"
    reason = text.partition(" See https://")[0].removeprefix(f"Error parsing override {override!r} ")
    return f"{override}: cannot be read ({reason}); {QUOTING}"


def _of_key(key: str, chain: Sequence[BaseException], words: Sequence[str]) -> str:
    parent: Any = next((getattr(link, "parent_node", None) for link in chain if getattr(link, "full_key", None)), None)
    holder, _, last = key.rpartition(".")
    if new := new_key(key):
        return f"{_typed(key, words)}: is now called {new}"
    names = [str(name) for name in parent if not str(name).startswith("_")] if hasattr(parent, "keys") else []
    if not names:
        return f"{_typed(key, words)}: {holder} has no keys of its own"
    first = key.partition(".")[0]
    of_root = "model" in names and first not in names  # a group of which nothing is chosen, or none at all
    if of_root and first != key and (options := sorted((conf_dir() / first).glob("*.yaml"))):
        chosen = ", ".join(f"{first}={option.stem}" for option in options)
        return f"{_typed(key, words)}: no option of {first} is chosen; valid: {chosen}"
    if not holder and (inside := [group for group in names if last in (_node(parent, group) or ())]):
        typed = _typed(key, words).lstrip("+~")
        return f"{_typed(key, words)}: no such key; valid: {', '.join(f'{group}.{typed}' for group in inside)}"
    if meant := _meant(key, names):
        return f"{_typed(key, words)}: {meant}"
    if not holder:
        names.append("experiment")
    elif of_root:
        last = first
    return f"{_typed(key, words)}: {unknown('key', last, names)}"


def _meant(key: str, names: Sequence[str]) -> str:
    """What other programs call it."""
    holder, _, last = key.rpartition(".")
    if holder == "model" and last in STAGES:
        return "this model has no such key; stages= is the number of stages of every model"
    if not holder and last in ("num_workers", "workers", "threads"):
        return "no such key; did you mean launch.threads?"
    found = next((name for called in SYNONYMS if last in called for name in called if name in names), "")
    return f"no such key; did you mean {holder}.{found}?" if holder and found else ""


def _node(parent: Any, group: str) -> Any:
    """The keys of a group; None for what is a value, or cannot be had."""
    try:
        found = parent[group]
    except Exception:  # an interpolation that has no value yet
        return None
    return found if hasattr(found, "keys") else None


def _quoted_after(start: str, text: str) -> str:
    match = re.search(re.escape(start) + "'(.*?)'", text)
    return match[1] if match else ""


def _typed(key: str, words: Sequence[str]) -> str:
    """The key as it stands on the command line, with its value."""
    return next((word for word in words if re.split("[=@]", word.lstrip("+~"))[0] == key), key)
