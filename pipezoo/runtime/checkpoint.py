"""Checkpoints: all that it takes to go on, bit for bit, on any number of stages, by any schedule and any splitter.

    FOLDER/checkpoints/step-00000010/
      part-0.pt ... part-3.pt    of each process: its parameters and buffers by their names in the unsplit model, what
                                 its optimizer's next step depends on (optimizer_state.py), its random numbers
      manifest.json              step, model, data, and size and SHA-256 of each part and of itself

    processes:  part-N.pt into .step-00000010, fsync, and say so
    parent:     when all have: manifest.json, fsync, rename to step-00000010, fsync, then remove the oldest

A kill at any moment leaves the newest complete one as it is: a folder without its final name is none. What is read must
be what was written, and nothing in it is executed (read_checkpoint.py). The data need no place of their
own: a batch is a function of its step.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from pipezoo.errors import OutputError
from pipezoo.experiment.component import Component
from pipezoo.results.run_dir import sync_folder
from pipezoo.runtime.optimizer_state import copied
from pipezoo.runtime.random_state import random_of_libraries

FOLDER = "checkpoints"
MANIFEST = "manifest.json"
FORMAT = 3
CANNOT_RESUME = "cannot_resume"  # in an origin: why nobody can go on from it
Named = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    Args:
        path: where it came from.
        step: steps that were done; the next one has this index.
        origin: what made it, by name: a value, or the hash of a text (:func:`origin_of`).
        model: parameters and buffers by name.
        optimizers: of each process that wrote it, what its optimizer goes on from; None where it had none.
        random: of each process, the state of its random numbers.
        recipe: what the step around the optimizer depends on: ``loss_scale``, and ``average`` by name.
        random_on_gpu: the same of its GPU's; None where it had none.
        evaluations: the steps behind each evaluation, and its loss.
    """

    path: Path
    step: int
    origin: dict[str, Any]
    model: dict[str, torch.Tensor]
    optimizers: list[dict[str, Any] | None]
    random: list[torch.Tensor]
    random_on_gpu: list[torch.Tensor | None] = field(default_factory=list)
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    recipe: dict[str, Any] = field(default_factory=dict)
    random_of_libraries: list[dict[str, Any]] = field(default_factory=list)


def origin_of(components: Sequence[Component], **more: Any) -> dict[str, Any]:
    """What made a run's numbers, for its manifests. Texts are hashed: one may be a secret from the environment.

    A component that is an object of the caller's own has no name, and is not in it.
    """
    found: dict[str, Any] = {component.group: component.target for component in components if component.target} | more
    for component in components:
        for name, value in component.arguments.items():
            is_number = isinstance(value, (int, float, type(None)))
            found[f"{component.group}.{name}"] = value if is_number else hash_of(value)
    return found


def hash_of(value: Any) -> str:
    """Of plain values, whatever the order of their keys."""
    return f"sha256:{hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()}"


def complete(checkpoints: Path) -> list[Path]:
    """The checkpoints of a run, the oldest first."""
    return sorted(path for path in checkpoints.glob("step-*") if (path / MANIFEST).is_file())


def first_writer(names: Iterable[Iterable[str]], owner: Callable[[int], int]) -> dict[str, int]:
    """Which process writes each parameter or buffer: the one with the first stage that holds it.

    Args:
        names: for each stage, what it holds, by its name in the unsplit model.
        owner: the process of a stage.
    """
    writer: dict[str, int] = {}
    for stage, locked in enumerate(names):
        for name in locked:
            writer.setdefault(name, owner(stage))
    return writer


def write_part(
    checkpoints: Path,
    step: int,
    process: int,
    model: Named,
    optimizer: dict[str, Any] | None,
    recipe: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Write what one process holds after ``step`` steps, and return what the manifest says of it.

    Args:
        checkpoints: the folder of all checkpoints of the run.
        model: the parameters and buffers that this process is to write.
        optimizer: what its optimizer goes on from (:func:`~pipezoo.runtime.optimizer_state.capture`), if it has one.
        recipe: what the step around it goes on from.
    """
    content = {
        "model": {name: copied(tensor) for name, tensor in model.items()},
        "optimizer": optimizer,
        "recipe": dict(recipe),
        "random_of_libraries": random_of_libraries(),
        "random": torch.get_rng_state(),
        "random_on_gpu": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }
    buffer = io.BytesIO()  # so that a full disk is the system's error, and not torch's
    torch.save(content, buffer)
    folder, name = _draft(checkpoints, step), f"part-{process}.pt"
    folder.mkdir(parents=True, exist_ok=True)
    data = buffer.getbuffer()
    _write(folder / name, data)
    return {
        "step": step,
        "process": process,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


@dataclass
class CheckpointWriter:
    """The parent's side: gives a checkpoint its name when all processes have written their parts.

    Args:
        keep: how many of the latest remain; None: all.
        origin: what made it (:func:`origin_of`).
        evaluations: so far, of the runs before as well.
        keeps_best: whether the one with the lowest of their losses remains too.
    """

    checkpoints: Path
    num_processes: int
    keep: int | None
    origin: Mapping[str, Any] = field(default_factory=dict)
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    keeps_best: bool = False
    _parts: dict[int, dict[int, dict[str, Any]]] = field(default_factory=dict)

    def on_message(self, name: str, message: dict[str, Any]) -> None:
        """One process has written its part. Raises OutputError."""
        parts = self._parts.setdefault(message["step"], {})
        parts[message["process"]] = message
        if len(parts) == self.num_processes:
            try:
                self._complete(message["step"], self._parts.pop(message["step"]))
            except OSError as error:
                raise OutputError(f"{self.checkpoints}: cannot be written: {error.strerror or error}") from error

    def _complete(self, step: int, parts: Mapping[int, dict[str, Any]]) -> None:
        draft, final = _draft(self.checkpoints, step), self.checkpoints / f"step-{step:08d}"
        manifest = {
            "format": FORMAT,
            "step": step,
            "origin": dict(self.origin),
            "parts": [{"sha256": parts[i]["sha256"], "bytes": parts[i]["bytes"]} for i in range(len(parts))],
        }
        if self.evaluations:
            manifest["evaluations"] = [list(known) for known in self.evaluations]
        _write(draft / MANIFEST, json.dumps({**manifest, "sha256": hash_of(manifest)}, indent=2).encode())
        sync_folder(draft)
        os.rename(draft, final)
        sync_folder(self.checkpoints)
        best = f"step-{self.best_step:08d}" if self.keeps_best else ""
        for old in complete(self.checkpoints)[: -self.keep] if self.keep else ():
            if old.name == best:
                continue
            doomed = old.with_name(f".{old.name}.old")
            os.rename(old, doomed)  # so that half of it is never taken for all of it
            shutil.rmtree(doomed, ignore_errors=True)

    @property
    def best_step(self) -> int:
        """The steps behind the evaluation with the lowest loss; 0 where there is none."""
        known = [(loss, steps) for steps, loss in self.evaluations if loss == loss]
        return min(known, default=(0.0, 0))[1]

    def clear(self) -> None:
        """Remove what did not become a checkpoint."""
        for draft in self.checkpoints.glob(".step-*"):
            shutil.rmtree(draft, ignore_errors=True)
        with suppress(OSError):
            self.checkpoints.rmdir()  # when there is none in it


def _draft(checkpoints: Path, step: int) -> Path:
    return checkpoints / f".step-{step:08d}"


def _write(path: Path, data: bytes | memoryview) -> None:
    try:
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None  # a full disk does not say whose file it was
