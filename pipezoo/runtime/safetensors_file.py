"""The file format safetensors, read and written: no code in it, and no library for it.

    8 bytes   length of the header, little endian
    header    JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {...}}
    data      the tensors, little endian, row by row

Source: https://huggingface.co/docs/safetensors, the section "Format".
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

LENGTH = struct.Struct("<Q")
MOST_HEADER = 10**8  # bytes
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "BOOL": torch.bool,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file by name. The file is mapped; a tensor's memory is its part of it.

    Raises:
        ValueError: it is not such a file.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < LENGTH.size:
            raise ValueError("is no safetensors file: it is too short")
        (length,) = LENGTH.unpack(file.read(LENGTH.size))
        if length > min(MOST_HEADER, size - LENGTH.size):
            raise ValueError("is no safetensors file: its header is longer than the file")
        try:
            header: dict[str, Any] = dict(json.loads(file.read(length)))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError("is no safetensors file: its header cannot be read") from error
        start = LENGTH.size + length
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    header.pop("__metadata__", None)
    return {name: _tensor(memory, start, size - start, name, entry) for name, entry in header.items()}


def _tensor(memory: mmap.mmap, start: int, size: int, name: str, entry: Any) -> torch.Tensor:
    try:
        dtype, shape, (begin, end) = DTYPES[entry["dtype"]], [int(n) for n in entry["shape"]], entry["data_offsets"]
        count = math.prod(shape)
        fits = min(shape, default=0) >= 0 and 0 <= begin <= end <= size and end - begin == count * dtype.itemsize
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"is no safetensors file: {name} has an entry that cannot be read") from error
    if not fits:
        raise ValueError(f"is no safetensors file: {name} does not lie in it as its shape says")
    if not count:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(memory, dtype=dtype, count=count, offset=start + begin).reshape(shape)


def write_safetensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors on the CPU by name, each with values of its own.

    Raises:
        ValueError: the format has no such dtype.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in NAMES or tensor.layout != torch.strided:
            raise ValueError(
                f"{name} is {str(tensor.dtype)[6:]} {str(tensor.layout)[6:]}, which safetensors does not know"
            )
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": [*tensor.shape], "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(LENGTH.pack(len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())
