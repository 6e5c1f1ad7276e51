"""The random numbers of Python and numpy in a process, as plain data that can be read without executing anything."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

WORDS, NUMPY_WORDS = 625, 624  # 32 bits each: of Python's generator with its place, and of numpy's


def seed_all(seed: int) -> None:
    """The generators of torch, Python and numpy in this process."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def random_of_libraries() -> dict[str, Any]:
    """``python`` and ``numpy``: their generators' words, and what else they hold."""
    version, words, gauss = random.getstate()
    _, keys, place, has_gauss, numpys_gauss = np.random.get_state(legacy=True)  # type: ignore[misc]
    return {
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
        "numpy": {
            "words": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "place": int(place),
            "has_gauss": int(has_gauss),
            "gauss": float(numpys_gauss),
        },
    }


def set_random_of_libraries(saved: Mapping[str, Any]) -> None:
    """Go on with them."""
    python, numpys = saved["python"], saved["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    words = numpys["words"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", words, numpys["place"], numpys["has_gauss"], numpys["gauss"]))


def is_random_of_libraries(value: Any) -> bool:
    """Whether :func:`set_random_of_libraries` could read it; None is what older checkpoints have."""
    if value is None:
        return True
    if not isinstance(value, dict) or not all(isinstance(value.get(name), dict) for name in ("python", "numpy")):
        return False
    python, numpys = value["python"], value["numpy"]
    return (
        _are_words(python.get("words"), WORDS)
        and type(python.get("version")) is int
        and isinstance(python.get("gauss"), (float, type(None)))
        and 0 <= int(python["words"][-1]) < WORDS
        and _are_words(numpys.get("words"), NUMPY_WORDS)
        and type(numpys.get("place")) is int
        and 0 <= numpys["place"] <= NUMPY_WORDS
        and numpys.get("has_gauss") in (0, 1)
        and isinstance(numpys.get("gauss"), float)
    )


def _are_words(value: Any, count: int) -> bool:
    if not isinstance(value, torch.Tensor) or value.dtype != torch.int64 or value.shape != (count,):
        return False
    return bool(((value >= 0) & (value < 2**32)).all())
