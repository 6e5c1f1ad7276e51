"""Checkpoints: all that it takes to go on, bit for bit, on any number of stages, by any schedule and any splitter.

    FOLDER/checkpoints/step-00000010/
      part-0.pt ... part-3.pt    of each process: its parameters and buffers by their names in the unsplit model, its
                                 optimizer's state by those names, its random numbers
      manifest.json              step, and size and SHA-256 of each part

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
import os
import pickle
import shutil
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipezoo.errors import ConfigError, OutputError
from pipezoo.results.run_dir import sync_folder

FOLDER = "checkpoints"
MANIFEST = "manifest.json"
FORMAT = 1
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
        model: parameters and buffers by name.
        optimizer: its state by the parameter's name; ``algorithm`` is its class.
        random: of each process that wrote it, the state of its random numbers.
        random_on_gpu: the same of its GPU's; None where it had none.
    """

    path: Path
    step: int
    model: dict[str, torch.Tensor]
    optimizer: dict[str, dict[str, Any]]
    algorithm: str
    random: list[torch.Tensor]
    random_on_gpu: list[torch.Tensor | None] = field(default_factory=list)


# Writing ----------------------------------------------------------------------------------------------------------


def write_part(
    checkpoints: Path, step: int, process: int, model: Named, parameters: Mapping[str, nn.Parameter], optimizer: Any
) -> dict[str, Any]:
    """Write what one process holds after ``step`` steps, and return what the manifest says of it.

    Args:
        checkpoints: the folder of all checkpoints of the run.
        model: the parameters and buffers that this process is to write.
        parameters: those of them, or more, that ``optimizer`` (None: there is none) moves.
    """
    state = {} if optimizer is None else optimizer.state
    content = {
        "model": {name: _own(tensor) for name, tensor in model.items()},
        "optimizer": {
            name: {key: _own(value) for key, value in state[parameter].items()}
            for name, parameter in parameters.items()
            if name in model and parameter in state
        },
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
        "algorithm": type(optimizer).__name__,
    }


@dataclass
class CheckpointWriter:
    """The parent's side: gives a checkpoint its name when all processes have written their parts.

    Args:
        keep: how many of the latest remain; None: all.
    """

    checkpoints: Path
    num_processes: int
    keep: int | None
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
            "optimizer": next((p["algorithm"] for p in parts.values() if p["algorithm"] != "NoneType"), "none"),
            "parts": [{"sha256": parts[i]["sha256"], "bytes": parts[i]["bytes"]} for i in range(len(parts))],
        }
        _write(draft / MANIFEST, json.dumps(manifest, indent=2).encode())
        sync_folder(draft)
        os.rename(draft, final)
        sync_folder(self.checkpoints)
        for old in complete(self.checkpoints)[: -self.keep] if self.keep else ():
            doomed = old.with_name(f".{old.name}.old")
            os.rename(old, doomed)  # so that half of it is never taken for all of it
            shutil.rmtree(doomed, ignore_errors=True)

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
    if not (folder / MANIFEST).is_file():
        found = complete(folder / FOLDER) or complete(folder)
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
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if manifest["format"] != FORMAT:
        raise ConfigError(f"is of format {manifest['format']}; this version reads {FORMAT}")
    saved = Checkpoint(folder, int(manifest["step"]), {}, {}, str(manifest["optimizer"]), [])
    for process, part in enumerate(manifest["parts"]):
        data = (folder / f"part-{process}.pt").read_bytes()
        if len(data) != part["bytes"] or hashlib.sha256(data).hexdigest() != part["sha256"]:
            raise ConfigError(f"part-{process}.pt is not what was written")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about files that are refused next
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        saved.model.update(content["model"])
        saved.optimizer.update(content["optimizer"])
        saved.random.append(content["random"])
        saved.random_on_gpu.append(content.get("random_on_gpu"))
    return saved


def restore_model(model: nn.Module, saved: Checkpoint) -> nn.Module:
    """Give a model the saved values. Raises ConfigError where it is not the model that was saved."""
    own = dict([*model.named_parameters(), *model.named_buffers()])
    for name in sorted({*own, *saved.model}):
        if name not in saved.model or name not in own:
            whose = "the checkpoint has no" if name in own else "the model has no"
            raise ConfigError(f"resume={saved.path}: is of another model: {whose} {name}")
        ours, theirs = own[name], saved.model[name]
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            words = [f"{tuple(tensor.shape)} {str(tensor.dtype)[6:]}" for tensor in (ours, theirs)]
            raise ConfigError(f"resume={saved.path}: is of another model: {name} is {words[0]}, there {words[1]}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(saved.model[name])
    return model


def restore_optimizer(
    optimizer: torch.optim.Optimizer, parameters: Iterable[tuple[str, nn.Parameter]], saved: Checkpoint
) -> None:
    """Give an optimizer the saved state of its parameters. Its arguments (a learning rate) stay as configured.

    Raises:
        ConfigError: it is another kind of optimizer.
    """
    if type(optimizer).__name__ != saved.algorithm:
        raise ConfigError(
            f"resume={saved.path}: was trained by {saved.algorithm}, and this is {type(optimizer).__name__}"
        )
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in parameters:
        if id(parameter) in known and name in saved.optimizer:
            state = saved.optimizer[name]
            optimizer.state[parameter] = {key: _placed(value, parameter) for key, value in state.items()}


def restore_random(process: int, num_processes: int, saved: Checkpoint) -> None:
    """Go on with the random numbers of this process, where as many processes wrote the checkpoint."""
    if len(saved.random) != num_processes:
        return
    torch.set_rng_state(saved.random[process])
    if torch.cuda.is_initialized() and (state := saved.random_on_gpu[process]) is not None:
        torch.cuda.set_rng_state(state)


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


def _own(value: Any) -> Any:
    """A tensor without the rest of the memory that it is a view of."""
    return value.detach().cpu().clone() if isinstance(value, torch.Tensor) else value


def _placed(value: Any, parameter: nn.Parameter) -> Any:
    """State that has the parameter's shape is where the parameter is; a step count stays on the CPU."""
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(parameter.device, copy=True) if value.shape == parameter.shape else value.clone()


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
