"""Tab completion of what Hydra cannot complete: the first word, and keys whose values are a fixed list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipezoo.experiment.experiment import TASKS, WORDS

FIRST = (*TASKS, "report", "rerun")
BOOLS = ("verify", "debug", "launch.emulate")


def completions(words: Sequence[str], environment: Mapping[str, str]) -> list[str] | None:
    """What the last word of a command line can become; None where Hydra knows better.

    Args:
        words: of this process, ``-sc query=bash`` when a shell asks.
        environment: where a shell puts the line (``COMP_LINE``).
    """
    if not {"-sc", "--shell-completion", "--shell_completion"} & {*words} or "query=bash" not in words:
        return None
    typed = environment.get("COMP_LINE", "").split(" ")
    last = typed[-1]
    if len(typed) == 2 and last and "=" not in last:
        found = [word for word in FIRST if word.startswith(last)]
        return found or None
    key, equals, start = last.partition("=")
    valid = {**WORDS, **dict.fromkeys(BOOLS, ("true", "false"))}
    if not equals or key not in valid:
        return None
    return [f"{key}={value}" for value in valid[key] if value.startswith(start)]
