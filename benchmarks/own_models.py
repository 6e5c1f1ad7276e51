"""Models as people write them at home, for ``benchmarks.byo``: no class says anything of pipelines.

What each of them has that a cut may trip over stands in its docstring.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

VOCABULARY, WIDTH, DEPTH = 64, 16, 4


class ResidualLSTM(nn.Module):
    """Layers that return tuples, and a residual around each."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(nn.LSTM(WIDTH, WIDTH, batch_first=True) for _ in range(DEPTH))
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, input_ids: Tensor) -> Any:
        x = self.embedding(input_ids)
        for layer in self.layers:
            x = x + layer(x)[0]
        return self.head(x)


class TwoTowers(nn.Module):
    """The second tower starts in a middle stage, from an input that needs no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.a, self.b = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.second, self.c = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor) -> Any:
        encoded = self.a(self.first(input_ids)).relu()
        decoded = self.second(decoder_input_ids)
        return self.head(self.c(decoded + self.b(encoded).relu()).relu())


class _Layers(nn.Module):
    """What the next two are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(DEPTH))
        self.head = nn.Linear(WIDTH, VOCABULARY)


class Autocast(_Layers):
    """bfloat16 inside of forward, float32 outside."""

    def forward(self, input_ids: Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            x = self.embedding(input_ids)
            for layer in self.layers:
                x = x + layer(x).relu()
            return self.head(x).float()


class FunctionalDropout(_Layers):
    """Values are dropped by a function that no module announces."""

    def forward(self, input_ids: Tensor) -> Any:
        x = self.embedding(input_ids)
        for layer in self.layers:
            x = F.dropout(layer(x).relu(), 0.1, self.training)
        return self.head(x)


class Checkpointed(nn.Module):
    """Activations of a block are computed anew in its backward."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU())

    def forward(self, x: Tensor) -> Any:
        return checkpoint(self.inner, x, use_reentrant=False)


def chain(*blocks: nn.Module) -> nn.Module:
    """Between an embedding and a head."""
    return nn.Sequential(nn.Embedding(VOCABULARY, WIDTH), *blocks, nn.Linear(WIDTH, VOCABULARY))


def checkpointed_chain() -> nn.Module:
    return chain(*(Checkpointed() for _ in range(DEPTH)))


def compiled_chain() -> nn.Module:
    blocks = [nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()) for _ in range(DEPTH)]
    for block in blocks:
        block.compile(backend="aot_eager")
    return chain(*blocks)


def dropout_chain() -> nn.Module:
    return chain(*(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.1), nn.ReLU()) for _ in range(DEPTH)))


class Normed(nn.Module):
    """Running statistics over rows and positions."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH)

    def forward(self, x: Tensor) -> Any:
        return self.norm(self.linear(x).transpose(1, 2)).transpose(1, 2).relu()


def batch_norm_chain() -> nn.Module:
    return chain(*(Normed() for _ in range(DEPTH)))


def llama(config: Any, checkpoints: bool = False, compiled: bool = False) -> Any:
    """Hugging Face's own class, with a method of it called before the training."""
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM(config)
    if checkpoints:
        model.gradient_checkpointing_enable()
    for layer in model.model.layers if compiled else ():
        layer.compile(backend="aot_eager")
    return model
