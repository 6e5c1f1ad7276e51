"""A run as its folder tells it. What is missing or torn is named in ``problems`` and left out; nothing is guessed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from pipezoo.errors import ConfigError
from pipezoo.results.renamed import with_new_result_keys
from pipezoo.results.run_dir import CONFIG, read_metrics, read_result
from pipezoo.results.sweep_table import inner, number, read_overrides
from pipezoo.results.timeline_file import load_timelines
from pipezoo.schedule.display import drawn
from pipezoo.simulator.timeline import Timeline
from pipezoo.validators import regular_file, unknown_word

LARGEST_CONFIG = 2**20  # bytes
MOST_VALUES, DEEPEST = 10_000, 20  # of a config or a result


class Timelines(list[Timeline]):
    """The timelines of a run, in their order; ``["measured"]`` and ``["predicted"]`` are the last of their source."""

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return super().__getitem__(key)
        found = next((timeline for timeline in reversed(self) if timeline.source == key), None)
        if found is None:
            raise unknown_word("timeline", key, "source", {timeline.source for timeline in self})
        return found


@dataclass(frozen=True, repr=False)
class Run:
    """A run as its folder tells it.

    Args:
        result: ``result.json``.
        metrics: the lines of ``metrics.jsonl``.
        timelines: of ``timeline.npz``, in its order; ``timelines["measured"]`` is the last that was measured.
        config_text: ``config.yaml`` as it stands there.
        config: the same, flat: ``{"model.d_hid": "512"}``.
        overrides: the words of the command line.
        problems: one line for each file that could not be read.
    """

    folder: Path
    result: dict[str, Any]
    metrics: list[dict[str, Any]] = field(default_factory=list)
    timelines: Timelines = field(default_factory=Timelines)
    config_text: str = ""
    config: dict[str, str] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
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
        """The last recorded one, ``predicted`` or ``measured``."""
        return next((timeline for timeline in reversed(self.timelines) if timeline.source == source), None)

    @property
    def status(self) -> str:
        """``ok``, ``failed``, ``interrupted``, ``running``."""
        return str(self.result.get("status", "unknown"))

    @property
    def verified(self) -> str | None:
        """``exact``, ``close`` or ``failed`` against one device; None where nothing was compared."""
        verdict = self.result.get("verified")
        return None if verdict is None else str(verdict)

    def __repr__(self) -> str:
        words = [self.title, *(["verified " + self.verified] if self.verified else [])]
        words += [self.status] if self.status != "ok" else []
        return f"Run('{self.folder}', {'; '.join(words)})"

    def _repr_html_(self) -> str:
        return drawn("run_html", self)

    @property
    def command(self) -> str:
        """What was typed."""
        return shlex.join(["python", "-m", "pipezoo", *self.overrides])

    @property
    def costs(self) -> list[Any]:
        """What each stage costs, as the run measured it or was told; see ``cost.py`` for the keys."""
        stages = inner(self.result, "prediction", "cost", "stages") or inner(self.result, "cost", "stages")
        return stages if isinstance(stages, list) else []

    @property
    def unit(self) -> str:
        """What the times of the run count: ``s``, or ``unit`` of a unit cost."""
        units = {str(self.result.get("time_unit", "s")), *(timeline.unit for timeline in self.timelines)}
        return "unit" if "unit" in units else "s"

    @property
    def memory_unit(self) -> str:
        return "bytes" if self.unit == "s" else "rank-microbatches"

    def memory(self, source: str) -> list[float | None]:
        """What each rank holds at its peak, in ``memory_unit``, ``predicted`` or ``measured``; empty where unknown."""
        values = inner(self.result, "memory", source)
        return [number(value) for value in values] if isinstance(values, list) else []


def read_run(folder: str | Path) -> Run:
    """Read a run's folder.

    Raises:
        ConfigError: there is no run in the folder.
    """
    folder = Path(folder)
    result = with_new_result_keys(read_result(folder))
    problems: list[str] = []
    timelines = _timelines(folder, problems)
    text = _config_text(folder, problems)
    config = dict(flat(_config(text, problems)))
    return Run(folder, result, read_metrics(folder), timelines, text, config, read_overrides(folder), problems)


def flat(content: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """``{"a": {"b": [1, 2]}}`` as ``("a.b", "[1, 2]")``: one pair for each value that is not a dict.

    A few lines of YAML can unfold into any number of values, or contain themselves; what goes too far is left out.
    """
    yield from _flat(content, name, DEEPEST, [MOST_VALUES])


def _flat(content: Any, name: str, depth: int, left: list[int]) -> Iterator[tuple[str, str]]:
    left[0] -= 1
    if left[0] < 0:
        return
    nested = isinstance(content, list) and any(isinstance(entry, (dict, list)) for entry in content)
    if not nested and not (isinstance(content, dict) and content):
        yield name, _spelled(content)
    elif depth == 0:
        yield name, "..."
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from _flat(value, f"{name}.{key}" if name else str(key), depth - 1, left)
    else:
        for index, value in enumerate(content):
            yield from _flat(value, f"{name}[{index}]", depth - 1, left)


def _spelled(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(_spelled, value))}]"
    return str(value)


def _timelines(folder: Path, problems: list[str]) -> Timelines:
    try:
        return Timelines(load_timelines(folder))
    except ConfigError as error:
        problems.append(str(error))
        return Timelines()


def _config_text(folder: Path, problems: list[str]) -> str:
    for path in (folder / CONFIG, folder / ".hydra" / CONFIG):
        try:
            with regular_file(path).open("rb") as file:
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
