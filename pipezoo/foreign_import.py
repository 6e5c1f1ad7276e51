"""Importing a library that a model comes from.

torchvision registers its operators from a compiled file. Where that file was built for another torch (a CUDA build
beside a CPU torch), not even `import torchvision` works, and with it neither timm nor transformers, though their models
need none of its operators. Declared without an implementation, they let the Python part load; a call of one fails.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

BOXES = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
OPERATORS = {"nms": BOXES, "qnms": BOXES}
_declared: list[Any] = []  # a library's declarations last as long as it does


def import_foreign(name: str) -> ModuleType:
    """Import a module; once more where only torchvision's operators were missing. Raises what the import raises."""
    try:
        return importlib.import_module(name)
    except Exception:
        if not declare_operators():
            raise
    return importlib.import_module(name)


def declare_operators() -> bool:
    """Declare the operators of a torchvision that cannot load them. Whether there was such a torchvision."""
    torch = sys.modules.get("torch")
    if torch is None or _declared or importlib.util.find_spec("torchvision") is None:
        return False
    try:
        importlib.import_module("torchvision")
        return False
    except Exception as error:
        if "operator torchvision::" not in str(error):
            return False
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in OPERATORS.items():
        library.define(f"{name}{schema}")
    _declared.append(library)
    return True
