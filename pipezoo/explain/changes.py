"""The words that turn a run's command line into that of another one."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from pipezoo.explain.alternatives import Alternative
from pipezoo.installed import conf_dir
from pipezoo.results.run import Run


def command(run: Run, *words: str) -> str:
    """The run's command line with these words, which replace those of the same keys and all that they overrule."""
    keys = {word.partition("=")[0] for word in words}
    stages = _stages_key(run)
    dropped = keys | {f"{key}." for key in keys if "." not in key}
    if "stages" in keys:
        dropped |= {"ranks", stages} if "ranks" not in keys else {stages}
    kept = [word for word in run.overrides if not _is_of(word, dropped)]
    return shlex.join(["python", "-m", "pipezoo", *kept, *words])


def of_alternative(run: Run, one: Alternative) -> str:
    """The command that runs it; where weight gradients are moved, the one that plans that from the run's costs."""
    if not one.choice:
        costs = [
            f"cost.file={run.folder}",
            f"ranks={one.order.num_ranks}",
            f"microbatches={one.order.num_microbatches}",
        ]
        words = ["task=plan", "cost=file", *costs, f"plan.stages_per_rank=[{one.num_stages // one.order.num_ranks}]"]
        return shlex.join(["python", "-m", "pipezoo", *words])
    words = [f"schedule={one.choice}"]
    if run.result.get("task") == "plan":  # which runs no schedule: the same costs in another order
        sizes = [
            f"stages={one.num_stages}",
            f"ranks={one.order.num_ranks}",
            f"microbatches={one.order.num_microbatches}",
        ]
        told = ["task=simulate", "cost=file", f"cost.file={run.folder}", *words, *sizes]
        return shlex.join(["python", "-m", "pipezoo", *told])
    if one.num_stages != run.result.get("num_stages"):
        words += [f"stages={one.num_stages}", f"ranks={one.order.num_ranks}"]
    return command(run, *words)


def _is_of(word: str, keys: Sequence[str] | set[str]) -> bool:
    name = word.lstrip("+~").partition("=")[0]
    return any(name == key or (key.endswith(".") and name.startswith(key)) for key in keys)


def _stages_key(run: Run) -> str:
    """``model.splits`` of a model that is told its number of stages."""
    return _stages_key_of(conf_dir() / "model" / f"{run.result.get('model')}.yaml")


@cache
def _stages_key_of(file: Path) -> str:
    if not file.is_file():
        return "stages"
    told = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("_stages_")
    return f"model.{told}" if told else "stages"
