"""Weights that a model starts from, and those that a training leaves: a state_dict of the unsplit model.

model.weights=FILE       every name of the model's state_dict is in it, and no other, each in its shape
export=safetensors       what state_dict() of the trained model would be: load_state_dict(strict=True) takes it
export=dcp               the same, as torch.distributed.checkpoint has it: a folder
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipezoo.errors import ArgumentError, ConfigError, OutputError
from pipezoo.runtime.dcp_folder import METADATA, is_dcp, read_dcp, write_dcp
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.safetensors_file import read_safetensors, write_safetensors

KEY = "model.weights"
WRAPPERS = ("state_dict", "model_state_dict", "model")  # names under which checkpoints of others have a state_dict
INDEX, WHOLE = (
    ("model.safetensors.index.json", "pytorch_model.bin.index.json"),
    ("model.safetensors", "pytorch_model.bin"),
)
SHOWN = 3  # names that are listed of each kind
UNREADABLE = (OSError, ValueError, LookupError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError)


def load_weights(model: nn.Module, path: str) -> nn.Module:
    """Give a model the values in a file; they take the dtype of the model's.

    Raises:
        ConfigError: there is no such file, nothing in it is a state_dict, or it is that of another model.
    """
    found = read_weights(path)
    own = model.state_dict(keep_vars=True)
    tensors = {name: value for name, value in own.items() if isinstance(value, torch.Tensor)}
    given = {id(tensors[name]) for name in tensors if name in found}  # a tied weight may have one name of several
    missing = [name for name, tensor in tensors.items() if id(tensor) not in given]
    extra = [name for name in found if name not in tensors]
    other = [
        f"{name} is {_words(tensors[name])}, there {_words(found[name])}"
        for name in found
        if name in tensors and _unlike(tensors[name], found[name])
    ]
    parts = (("it lacks", missing), ("the model has no", extra), ("other shapes:", other))
    if wrong := "; ".join(f"{what} {_listed(names)}" for what, names in parts if names):
        raise ConfigError(f"{KEY}={path}: is of another model: {wrong}")
    with torch.no_grad():
        for name, value in found.items():
            tensors[name].copy_(value)
    return model


def read_weights(path: str) -> dict[str, torch.Tensor]:
    """The tensors in a file, or in a folder as Hugging Face's libraries or torch's distributed checkpoint have them.

    Raises:
        ConfigError: there are none, or they cannot be read.
    """
    place = Path(path).expanduser()
    try:
        return _of_folder(place) if place.is_dir() else _of_file(place)
    except FileNotFoundError as error:
        raise ConfigError(f"{KEY}={path}: no such file or folder: {error.filename or place}") from error
    except ArgumentError as error:
        raise ConfigError(error.at(KEY), error) from error
    except UNREADABLE as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        if isinstance(error, pickle.UnpicklingError):
            why = "holds more than tensors, and nothing in it is executed; valid: a state_dict, .safetensors"
        raise ConfigError(f"{KEY}={path}: {why}") from error


def _of_folder(folder: Path) -> dict[str, torch.Tensor]:
    for index in INDEX:
        if (folder / index).is_file():
            files = sorted({*json.loads((folder / index).read_text())["weight_map"].values()})
            if any(Path(name).name != name for name in files):
                raise ValueError(f"{index} leads out of its folder")
            return {name: tensor for file in files for name, tensor in _of_file(folder / file).items()}
    for whole in WHOLE:
        if (folder / whole).is_file():
            return _of_file(folder / whole)
    if is_dcp(folder):
        return read_dcp(folder)
    valid = f"{', '.join(WHOLE)}, an index of them, or {METADATA} of a distributed checkpoint"
    raise ArgumentError("weights", str(folder), "the folder has no weights", valid)


def _of_file(path: Path) -> dict[str, torch.Tensor]:
    if not path.exists():
        raise FileNotFoundError(2, "no such file", str(path))
    if not path.is_file():
        raise ValueError("is no regular file")
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise ValueError("holds no state_dict: names with tensors")
    return {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}


def trained_state(pipeline: Pipeline, averages: bool = False) -> dict[str, Any]:
    """What ``state_dict()`` of the unsplit model is after the last step, from what the ranks left.

    Args:
        averages: whether what learns has its moving average for a value, in the model's dtype.
    """
    model = pipeline.stages.model
    left: dict[str, torch.Tensor] = {}
    for rank in range(pipeline.pp):
        for values in pipeline.load(f"last{rank}.pt").values():
            left.update({name: value for name, value in values.items() if value is not None and name not in left})
        if averages:
            (kept,) = pipeline.load(f"average{rank}.pt").values()
            left.update({name: value.to(left[name].dtype) for name, value in kept.items()})
    first_names = {id(tensor): name for name, tensor in (*model.named_buffers(), *model.named_parameters())}
    state: dict[str, Any] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        trained = left.get(first_names.get(id(value), name), value)
        state[name] = trained.detach().cpu() if isinstance(trained, torch.Tensor) else trained
    return state


def write_weights(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state_dict: as safetensors, as a folder of torch's distributed checkpoint (``.dcp``), or for
    ``torch.load(weights_only=True)``. It appears whole.

    Raises:
        OutputError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.part")
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    try:
        if path.suffix == ".safetensors":
            write_safetensors(draft, tensors)
        elif path.suffix == ".dcp":
            write_dcp(draft, tensors)
        else:
            buffer = io.BytesIO()
            torch.save(dict(state), buffer)
            draft.write_bytes(buffer.getbuffer())
        os.replace(draft, path)
    except (OSError, ValueError) as error:
        shutil.rmtree(draft, ignore_errors=True)
        with suppress(OSError):
            draft.unlink()
        raise OutputError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from error


def _unlike(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return ours.shape != theirs.shape or ours.is_floating_point() != theirs.is_floating_point()


def _words(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype)[6:]}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
