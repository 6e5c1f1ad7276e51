"""Model families, one per file: plain modules that know nothing of ranks, processes or schedules.

The names below are those of PyTorch's own pipelining tests, beside models people really train. The list is a
convenience: a model in a file of its own is found by its full path, without an entry here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipezoo.models.example_code import ExampleCode
    from pipezoo.models.gpt import GPT
    from pipezoo.models.mlp import MLPModule, MultiMLP
    from pipezoo.models.mlp_kwargs import MLPKWargModule, MultiMLPKwargs
    from pipezoo.models.mlp_with_dw import CustomLinearDx, CustomLinearDxDw, MLPModuleWithDw, MultiMLPWithDw
    from pipezoo.models.param_alias import ModelWithParamAlias
    from pipezoo.models.unet import UNet
    from pipezoo.models.with_kwargs import ModelWithKwargs

_FILES = {
    "CustomLinearDx": "mlp_with_dw",
    "CustomLinearDxDw": "mlp_with_dw",
    "ExampleCode": "example_code",
    "GPT": "gpt",
    "MLPKWargModule": "mlp_kwargs",
    "MLPModule": "mlp",
    "MLPModuleWithDw": "mlp_with_dw",
    "ModelWithKwargs": "with_kwargs",
    "ModelWithParamAlias": "param_alias",
    "MultiMLP": "mlp",
    "MultiMLPKwargs": "mlp_kwargs",
    "MultiMLPWithDw": "mlp_with_dw",
    "UNet": "unet",
}

__all__ = [
    "GPT",
    "CustomLinearDx",
    "CustomLinearDxDw",
    "ExampleCode",
    "MLPKWargModule",
    "MLPModule",
    "MLPModuleWithDw",
    "ModelWithKwargs",
    "ModelWithParamAlias",
    "MultiMLP",
    "MultiMLPKwargs",
    "MultiMLPWithDw",
    "UNet",
]


def __getattr__(name: str) -> Any:
    """A model's file is imported when somebody wants the model: some of them take torch's pipelining with them."""
    if name not in _FILES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
