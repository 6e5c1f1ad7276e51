"""torch's profiler around some steps of a rank: its operators, where the timeline has actions.

It writes ``profile<rank>.json`` into the scratch folder after the last of its steps; who started the ranks moves it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from pipezoo.experiment.profile import ProfileOptions

FOLDER = "profile"


@dataclass(frozen=True)
class Profile:
    """What is profiled: the options, and the steps that they came to."""

    options: ProfileOptions
    steps: tuple[int, ...]


class Profiler:
    """One rank's. Looks at nothing where there is no ``told``."""

    def __init__(self, told: Profile | None, file: Path, device: torch.device) -> None:
        self._told, self._file, self._device = told, file, device
        self._running: Any = None

    @contextmanager
    def step(self, step: int) -> Iterator[None]:
        """Around one step: a single trace from the first of the chosen ones to the last."""
        if self._told is None or step not in self._told.steps:
            yield
            return
        if self._running is None:
            self._running = self._started(self._told.options)
        with record_function(f"step {step}"):
            yield
        if step == max(self._told.steps):
            self.end()

    def end(self) -> None:
        """Write what there is."""
        if self._running is not None:
            self._running.stop()
            self._running.export_chrome_trace(str(self._file))
            self._running = None

    def _started(self, options: ProfileOptions) -> Any:
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self._device.type == "cuda" else [])]
        looks: dict[str, Any] = {"profile_memory": options.memory, "with_stack": options.stacks}
        running = profile(activities=activities, record_shapes=options.shapes, **looks)
        running.start()
        return running


def keep_traces(scratch: Path, num_processes: int, folder: Path) -> list[Path]:
    """Put the traces of all processes into the run's folder, and return where they are."""
    kept = []
    for rank in range(num_processes):
        if (trace := scratch / f"profile{rank}.json").is_file():
            (folder / FOLDER).mkdir(exist_ok=True)
            kept.append(folder / FOLDER / f"rank{rank}.json")
            _move(trace, kept[-1])
    return kept


def _move(source: Path, target: Path) -> None:
    draft = target.with_name(f".{target.name}")
    draft.write_bytes(source.read_bytes())
    draft.replace(target)
