"""Checkpoints as they are read: whatever stands in the files, it is what was written, or it is refused in a line."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipezoo.errors import ConfigError
from pipezoo.runtime.checkpoint import FOLDER, FORMAT, MANIFEST, Checkpoint, complete, hash_of
from pipezoo.runtime.random_state import is_random_of_libraries
from pipezoo.validators import regular_file

OLDER = (2,)  # formats that are read, too; 2 knows nothing of a recipe around the optimizer
MOST_STEPS = 2**53
UNREADABLE = (  # what a file that is no checkpoint may make its readers raise
    OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, EOFError, pickle.UnpicklingError
)  # fmt: skip


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
    if manifest.pop("sha256") != hash_of(manifest):
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


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
