"""torch's distributed checkpoint: a folder that trainers with any number of ranks write, and read.

    .metadata        a pickle: names, shapes, and where each piece of each tensor lies
    __0_0.distcp     pieces; __RANK_N of each rank that wrote

Only the names that such a pickle needs are looked up, and only tensors are read: nothing in the folder is executed. One
process reads what many have written; no process group is needed.
"""

from __future__ import annotations

import importlib
import math
import pickle
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from pipezoo.validators import regular_file

METADATA, PIECES = ".metadata", "*.distcp"
WRAPPERS = ("model", "state_dict", "model_state_dict")  # under which trainers that save more have the model
_CHECKPOINT = "torch.distributed.checkpoint"
_CLASSES = {
    f"{_CHECKPOINT}.metadata": (
        "Metadata", "MetadataIndex", "StorageMeta", "TensorStorageMetadata", "BytesStorageMetadata", "TensorProperties",
        "ChunkStorageMetadata", "_MEM_FORMAT_ENCODING",
    ),
    f"{_CHECKPOINT}.filesystem": ("_StorageInfo",),
    "torch": ("Size",),
    "torch.serialization": ("_get_layout",),
    "collections": ("OrderedDict",),
    "pathlib": ("PosixPath", "PurePosixPath"),
}  # fmt: skip


def is_dcp(folder: Path) -> bool:
    """Whether this is meant to be one, whole or not."""
    return (folder / METADATA).exists() or any(folder.glob(PIECES))


def write_dcp(folder: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Write tensors by name into a new folder. Raises OSError."""
    from torch.distributed import checkpoint

    class Writer(checkpoint.FileSystemWriter):
        def storage_meta(self) -> None:
            """Nothing of where the folder is."""

    with _alone():
        try:
            checkpoint.save(dict(state), storage_writer=Writer(folder), no_dist=True)
        except checkpoint.CheckpointException as error:
            raise OSError(_first_line(error)) from error


def read_dcp(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of the model in a folder, whoever and however many have saved it.

    They are those at the top of what was saved; else those under ``model`` or ``state_dict``. An optimizer's and a
    trainer's own are left out.

    Raises:
        ValueError: it is no such folder, it is not whole, or its pieces do not make up its tensors.
    """
    from torch.distributed import checkpoint

    metadata = _metadata(folder)
    found = {entry: info for entry, info in metadata.state_dict_metadata.items() if hasattr(info, "chunks")}
    names = _names(found, metadata.planner_data or {})
    if not names:
        raise ValueError("holds no tensors of a model")
    _check_pieces(folder, metadata, {entry: found[entry] for entry in names})
    into = {entry: torch.empty(found[entry].size, dtype=found[entry].properties.dtype) for entry in names}

    class Reader(checkpoint.FileSystemReader):
        def read_metadata(self, *args: Any, **kwargs: Any) -> Any:
            return metadata

    try:
        with _alone():
            checkpoint.load(into, storage_reader=Reader(folder), no_dist=True)
    except checkpoint.CheckpointException as error:
        raise ValueError(f"cannot be read: {_first_line(error)}") from error
    return {names[entry]: tensor for entry, tensor in into.items()}


def _metadata(folder: Path) -> Any:
    if not (folder / METADATA).is_file():
        raise ValueError(f"has pieces of a checkpoint and no {METADATA}, which is written last")
    with regular_file(folder / METADATA).open("rb") as file:
        metadata = _Unpickler(file).load()
    if not isinstance(getattr(metadata, "state_dict_metadata", None), dict) or not isinstance(
        metadata.storage_data, dict
    ):
        raise ValueError(f"{METADATA} is not what torch.distributed.checkpoint writes")
    return metadata


def _names(found: Mapping[str, Any], paths: Mapping[str, Any]) -> dict[str, str]:
    """By entry the name in the model. A path is where an entry stood: ``("model", "layers.0.bias")``."""
    split = {entry: paths.get(entry) or (entry,) for entry in found}
    top = {entry: entry for entry, path in split.items() if len(path) == 1}
    for wrapper in WRAPPERS:
        inside = {e: ".".join(map(str, path[1:])) for e, path in split.items() if len(path) > 1 and path[0] == wrapper}
        if inside and not top:
            return inside
    return top


def _check_pieces(folder: Path, metadata: Any, tensors: Mapping[str, Any]) -> None:
    """Every piece lies in its file, in this folder, and the pieces of a tensor are as many values as it has."""
    sizes: dict[str, int] = {}
    for index, place in metadata.storage_data.items():
        if index.fqn not in tensors:
            continue
        file = str(place.relative_path)
        if file not in sizes:
            if Path(file).name != file:
                raise ValueError(f"{METADATA} leads out of the folder: {file}")
            if not (folder / file).is_file():
                raise ValueError(f"has no {file}, of which {METADATA} tells")
            sizes[file] = regular_file(folder / file).stat().st_size
        if not 0 <= place.offset <= place.offset + place.length <= sizes[file]:
            raise ValueError(f"{file} ends before {index.fqn} does")
    for name, info in tensors.items():
        if sum(math.prod(chunk.sizes) for chunk in info.chunks) != math.prod(info.size):
            raise ValueError(f"the pieces of {name} do not make up its shape {tuple(info.size)}")
        if math.prod(info.size) > sum(sizes.values()):
            raise ValueError(f"{name} is said to be larger than the files")


class _Unpickler(pickle.Unpickler):
    """Of what is written in such a file, and of nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype):
            return found
        if name in _CLASSES.get(module, ()):
            return getattr(importlib.import_module(module), name)
        raise pickle.UnpicklingError(f"{METADATA} asks for {module}.{name}")


def _first_line(error: Any) -> str:
    """The first line of what went wrong first in a ``CheckpointException``."""
    why = next(iter(error.failures.values()))[0]
    return (str(why).strip().splitlines() or [type(why).__name__])[0][:150]


@contextmanager
def _alone() -> Iterator[None]:
    """Without a word on there being no other process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield
