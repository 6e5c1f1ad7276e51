"""Model families, one per file: plain modules that know nothing of ranks, processes or schedules.

The names below are those of PyTorch's own pipelining tests, beside models people really train. The list is a
convenience: a model in a file of its own is found by its full path, without an entry here.
"""

from pipezoo.models.example_code import ExampleCode
from pipezoo.models.gpt import GPT
from pipezoo.models.mlp import MLPModule, MultiMLP
from pipezoo.models.mlp_kwargs import MLPKWargModule, MultiMLPKwargs
from pipezoo.models.mlp_with_dw import CustomLinearDx, CustomLinearDxDw, MLPModuleWithDw, MultiMLPWithDw
from pipezoo.models.param_alias import ModelWithParamAlias
from pipezoo.models.with_kwargs import ModelWithKwargs

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
]
