"""Any model of timm, from its name; random weights, nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from torch import nn

from pipezoo.errors import ArgumentError
from pipezoo.models._extra import extra
from pipezoo.validators import check_int


def timm_model(name: str = "resnet18", num_classes: int = 10, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """``timm.create_model(name, pretrained=False)``, from images ``[rows, 3, size, size]`` to ``[rows, classes]``.

    Args:
        name: as ``timm.list_models()`` has it.
        num_classes: classes to tell apart.
        arguments: further arguments of the model, by their own names (``img_size``, ``depth``, ``drop_path_rate``).

    Raises:
        ArgumentError: an unknown name.
        ConfigError: timm is not installed.
    """
    check_int("num_classes", num_classes, 1)
    timm = extra("timm", "timm", "timm")
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models()) or ["resnet18", "vit_tiny_patch16_224", "convnext_atto"]
        raise ArgumentError("name", name, "timm has no model of this name", ", ".join([*near, "..."]))
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes, **dict(arguments or {}))
    return model
