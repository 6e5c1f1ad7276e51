"""A run as its folder tells it. What is missing or torn is named in ``problems`` and left out; nothing is guessed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from pipezoo.errors import ConfigError
from pipezoo.report.folder import CONFIG, TIMELINE, read_metrics, read_result
from pipezoo.report.perfetto import read_trace
from pipezoo.report.sweep import inner, number
from pipezoo.timeline import Timeline

LARGEST_CONFIG = 2**20  # bytes
MOST_VALUES = 10_000  # of a config or a result; a file can be made to unfold into any number


@dataclass(frozen=True)
class Run:
    """Everything the report needs to know.

    Args:
        result: ``result.json``.
        metrics: the lines of ``metrics.jsonl``.
        timelines: of ``timeline.json``, in its order; ``unit`` is what their times count (``s`` or ``unit``).
        config_text: ``config.yaml`` as it stands there.
        config: the same, flat: ``{"model.d_hid": "512"}``.
        problems: one line for each file that could not be read.
    """

    folder: Path
    result: dict[str, Any]
    metrics: list[dict[str, Any]] = field(default_factory=list)
    timelines: list[Timeline] = field(default_factory=list)
    unit: str = "s"
    config_text: str = ""
    config: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """``multi_mlp, 1f1b, 4 stages on 2 ranks, 8 microbatches``, as far as it is known."""
        result = self.result
        words = [str(result[key]) for key in ("model", "schedule") if result.get(key)]
        stages, ranks, microbatches = (result.get(f"num_{key}") for key in ("stages", "ranks", "microbatches"))
        if stages is not None and ranks is not None:
            words.append(f"{stages} stages on {ranks} ranks")
        if microbatches is not None:
            words.append(f"{microbatches} microbatches")
        return ", ".join(words) or self.folder.resolve().name

    @property
    def losses(self) -> list[float]:
        """One per step, NaN where there was none; from ``result.json``, else from the metrics of a run that was cut."""
        losses = self.result.get("losses")
        if not isinstance(losses, list):
            losses = [entry.get("loss") for entry in self.metrics]
        known = (number(loss) for loss in losses)
        return [float("nan") if loss is None else loss for loss in known]

    def timeline(self, source: str) -> Timeline | None:
        return next((timeline for timeline in self.timelines if timeline.source == source), None)

    def memory(self, source: str) -> list[float | None]:
        """Bytes per rank at the peak, ``predicted`` or ``measured``; empty where the run does not say."""
        memory = self.result.get("memory")
        if isinstance(memory, list):
            return [number(inner(rank, source)) for rank in memory] if memory else []
        values = inner(memory, source)
        return [number(value) for value in values] if isinstance(values, list) else []


def read_run(folder: str | Path) -> Run:
    """Read a run's folder.

    Raises:
        ConfigError: there is no run in the folder.
    """
    folder = Path(folder)
    result = read_result(folder)
    problems: list[str] = []
    timelines, unit = _timelines(folder, problems)
    text = _config_text(folder, problems)
    config = dict(flat(_config(text, problems)))
    return Run(folder, result, read_metrics(folder), timelines, unit, text, config, problems)


def flat(content: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """``{"a": {"b": [1, 2]}}`` as ``("a.b", "[1, 2]")``: one pair for each value that is not a dict."""
    left = [MOST_VALUES]
    yield from _flat(content, name, left)


def _flat(content: Any, name: str, left: list[int]) -> Iterator[tuple[str, str]]:
    if isinstance(content, dict) and content:
        for key, value in content.items():
            yield from _flat(value, f"{name}.{key}" if name else str(key), left)
    elif isinstance(content, list) and any(isinstance(entry, (dict, list)) for entry in content):
        for index, value in enumerate(content):
            yield from _flat(value, f"{name}[{index}]", left)
    elif left[0] > 0:
        left[0] -= 1
        yield name, _spelled(content)


def _spelled(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(_spelled, value))}]"
    return str(value)


def _timelines(folder: Path, problems: list[str]) -> tuple[list[Timeline], str]:
    if not (folder / TIMELINE).exists():
        return [], "s"
    try:
        return read_trace(folder / TIMELINE)
    except ConfigError as error:
        problems.append(str(error))
        return [], "s"


def _config_text(folder: Path, problems: list[str]) -> str:
    for path in (folder / CONFIG, folder / ".hydra" / CONFIG):
        try:
            with path.open("rb") as file:
                return file.read(LARGEST_CONFIG).decode("utf-8", "replace")
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(f"file={path}: {error.strerror or error}")
    return ""


def _config(text: str, problems: list[str]) -> Any:
    try:
        return yaml.safe_load(text) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problems.append(f"file={CONFIG}: not YAML ({type(error).__name__})")
        return {}
