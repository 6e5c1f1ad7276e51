"""Checkpoints: all that it takes to go on, bit for bit, on any number of stages, by any schedule and any splitter.

    FOLDER/checkpoints/step-00000010/
      part-0.pt ... part-3.pt    of each process: its parameters and buffers by their names in the unsplit model, what
                                 its optimizer's next step depends on (optimizer_state.py), its random numbers
      manifest.json              step, model, data, and size and SHA-256 of each part and of itself

    processes:  part-N.pt into .step-00000010, fsync, and say so
    parent:     when all have: manifest.json, fsync, rename to step-00000010, fsync, then remove the oldest

A kill at any moment leaves the newest complete one as it is: a folder without its final name is none. What is read must
be what was written, and nothing in it is executed. The data need no place of their own: a batch is a function of its
step.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import pickle
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from pipezoo.errors import ConfigError, OutputError
from pipezoo.experiment.component import Component
from pipezoo.results.run_dir import sync_folder
from pipezoo.runtime.optimizer_state import copied
from pipezoo.runtime.random_state import is_random_of_libraries, random_of_libraries
from pipezoo.validators import regular_file

FOLDER = "checkpoints"
MANIFEST = "manifest.json"
FORMAT, OLDER = 3, (2,)  # format 2 knows nothing of a recipe around the optimizer
CANNOT_RESUME = "cannot_resume"  # in an origin: why nobody can go on from it
MOST_STEPS = 2**53
UNREADABLE = (  # what a file that is no checkpoint may make its readers raise
    OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, EOFError, pickle.UnpicklingError
)  # fmt: skip
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
            found[f"{component.group}.{name}"] = value if isinstance(value, (int, float, type(None))) else _hash(value)
    return found


def _hash(value: Any) -> str:
    return f"sha256:{hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()}"


# Writing ----------------------------------------------------------------------------------------------------------


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
        _write(draft / MANIFEST, json.dumps({**manifest, "sha256": _hash(manifest)}, indent=2).encode())
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


# Reading ----------------------------------------------------------------------------------------------------------


def complete(checkpoints: Path) -> list[Path]:
    """The checkpoints of a run, the oldest first."""
    return sorted(path for path in checkpoints.glob("step-*") if (path / MANIFEST).is_file())


def read(resume: str) -> Checkpoint:
    """The newest checkpoint of the run in folder ``resume``, or the checkpoint that it is.

    Raises:
        ConfigError: there is none, or it is not what was written.
    """
    folder = Path(resume)
    if not os.path.isfile(folder / MANIFEST):  # not Path's, which raises where a name is too long
        try:
            found = complete(folder / FOLDER) or complete(folder)
        except OSError as error:
            raise ConfigError(f"resume={resume}: cannot be read: {error.strerror or error}") from error
        if not found:
            raise ConfigError(f"resume={resume}: holds no complete checkpoint; valid: a run that wrote one")
        folder = found[-1]
    try:
        return _read(folder)
    except UNREADABLE as error:
        text = (
            " ".join(str(error).split()) if isinstance(error, ConfigError) else f"cannot be read: {_first_line(error)}"
        )
        others = ", ".join(str(other) for other in reversed(complete(folder.parent)) if other != folder)
        raise ConfigError(f"resume={folder}: {text}" + (f"; valid: {others}" if others else "")) from error


def _read(folder: Path) -> Checkpoint:
    step, origin, parts, evaluations = _manifest(folder)
    saved = Checkpoint(folder, step, origin, {}, [], [], evaluations=evaluations)
    for process, part in enumerate(parts):
        content = _part(folder / f"part-{process}.pt", part)
        saved.model.update(content["model"])
        saved.optimizers.append(content["optimizer"])
        _add_recipe(saved.recipe, content.get("recipe", {}))
        if "random_of_libraries" in content:
            saved.random_of_libraries.append(content["random_of_libraries"])
        saved.random.append(content["random"])
        saved.random_on_gpu.append(content["random_on_gpu"])
    return saved


def _add_recipe(whole: dict[str, Any], part: Mapping[str, Any]) -> None:
    """Averages are by name, each from the processes that hold it; the loss scale is the same on all."""
    for key, value in part.items():
        whole[key] = {**whole.get(key, {}), **value}


def _manifest(folder: Path) -> tuple[int, dict[str, Any], list[Any], list[tuple[int, float]]]:
    """Step, origin, parts and evaluations. Raises ConfigError for a manifest that was changed."""
    if not (folder / MANIFEST).is_file():
        raise ConfigError(f"{MANIFEST} is no file")
    manifest = json.loads(regular_file(folder / MANIFEST).read_text(encoding="utf-8"))
    if manifest["format"] not in (FORMAT, *OLDER):
        raise ConfigError(f"is of format {manifest['format']}; this version reads {FORMAT}")
    if manifest.pop("sha256") != _hash(manifest):
        raise ConfigError(f"{MANIFEST} is not what was written")
    step, origin, parts = manifest["step"], manifest["origin"], manifest["parts"]
    if type(step) is not int or not 1 <= step < MOST_STEPS:
        raise ConfigError(f"{MANIFEST}: step is {step!r}; valid: a number of steps")
    if folder.name.startswith("step-") and folder.name != f"step-{step:08d}":
        raise ConfigError(f"{MANIFEST}: step is {step}, and the folder is {folder.name}")
    if not isinstance(origin, dict) or not isinstance(parts, list) or not parts:
        raise ConfigError(f"{MANIFEST}: origin or parts are not what was written")
    evaluations = [(int(steps), float(loss)) for steps, loss in manifest.get("evaluations", [])]
    return step, origin, parts, evaluations


def _part(path: Path, expected: dict[str, Any]) -> dict[str, Any]:
    """What one process wrote, every value of the type that it has. Raises ConfigError."""
    if not path.is_file() or path.stat().st_size != expected["bytes"]:
        raise ConfigError(f"{path.name} is not what was written")
    data = regular_file(path).read_bytes()
    if hashlib.sha256(data).hexdigest() != expected["sha256"]:
        raise ConfigError(f"{path.name} is not what was written")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about files that are refused next
        content: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    model, optimizer, random, on_gpu = (content[key] for key in ("model", "optimizer", "random", "random_on_gpu"))
    right = {
        "model": _named(model, torch.Tensor),
        "optimizer": optimizer is None or _is_optimizer(optimizer),
        "random": _is_state(random) and random.numel() == torch.get_rng_state().numel(),
        "random_on_gpu": on_gpu is None or _is_state(on_gpu),
        "recipe": _is_recipe(content.get("recipe", {})),
        "random_of_libraries": is_random_of_libraries(content.get("random_of_libraries")),
    }
    for key, is_right in right.items():
        if not is_right:
            raise ConfigError(f"{path.name}: {key} is not what was written")
    return content


def _named(value: Any, kind: type) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, kind) for k, v in value.items())


def _is_state(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.uint8 and value.dim() == 1


def _is_recipe(value: Any) -> bool:
    """A scale that is a number above zero, and averages by name."""
    if not isinstance(value, dict) or not _named(value.get("average", {}), torch.Tensor):
        return False
    scale = value.get("loss_scale", {"scale": 1.0, "since": 0})
    return (
        isinstance(scale, dict)
        and isinstance(scale.get("scale"), float)
        and 0 < scale["scale"] < math.inf
        and type(scale.get("since")) is int
    )


def _is_optimizer(value: Any) -> bool:
    """Whether all is there that :func:`~pipezoo.runtime.optimizer_state.restore` reads, in the right types."""
    kinds = {"algorithm": str, "names": list, "state": dict, "options": dict, "rest": dict, "began": dict}
    return (
        isinstance(value, dict)
        and all(isinstance(value.get(key), kind) for key, kind in kinds.items())
        and _named(value["state"], dict)
        and _named(value["options"], dict)
        and all(isinstance(name, str) for name in value["names"])
        and _named(value["began"].get("options"), dict)
        and isinstance(value["began"].get("rest"), dict)
        and _named(value.get("masters", {}), torch.Tensor)
        and _is_schedule(value.get("lr_schedule"))
    )


def _is_schedule(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and isinstance(value.get("kind"), str) and "state" in value)


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


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
