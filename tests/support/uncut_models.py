"""Models that say nothing of how they may be cut, each with what makes it hard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

WIDTH, VOCABULARY, ROWS, LENGTH = 8, 11, 4, 6


class UNet(nn.Module):
    """Skips by concatenation, pooling between modules."""

    def __init__(self) -> None:
        super().__init__()

        def conv(inputs: int, outputs: int) -> nn.Module:
            return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True))

        self.down1, self.down2, self.middle = conv(3, 4), conv(4, 8), conv(8, 8)
        self.up2, self.up1, self.out = conv(16, 4), conv(8, 4), nn.Conv2d(4, 3, 1)
        self.pool, self.up = nn.MaxPool2d(2), nn.Upsample(scale_factor=2)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(self.pool(a))
        c = self.middle(self.pool(b))
        d = self.up2(torch.cat([self.up(c), b], 1))
        return self.out(self.up1(torch.cat([self.up(d), a], 1)))


class ResidualLSTM(nn.Module):
    """Residuals outside of the modules; layers that return tuples."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(nn.LSTM(WIDTH, WIDTH, batch_first=True) for _ in range(3))
        self.head = nn.Linear(WIDTH, WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for layer in self.layers:
            x = x + layer(x)[0]
        return self.head(x)


class TwoTowers(nn.Module):
    """The second tower starts behind a cut, from an input that the first stage does not need."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.a, self.b = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.second, self.c, self.head = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 1)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        encoded = self.b(self.a(self.first(source)).relu()).relu()
        return self.head(self.c(self.second(target) + encoded).relu())


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.down(self.up(self.norm(x)).relu())
        return x + (y if mask is None else y * mask)


class Positions(nn.Module):
    """A table without parameters that depends on its input's shape alone."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rates", torch.rand(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return torch.arange(x.shape[1]).unsqueeze(1) * self.rates


class Classifier(nn.Module):
    """A parameter of the root, tied weights, a frozen table, a mask from an input, a module used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.frozen = nn.Parameter(torch.randn(1, LENGTH + 1, WIDTH), requires_grad=False)
        self.positions = Positions()
        self.blocks = nn.ModuleList(Block() for _ in range(4))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(ids), -1, -1), self.embedding(ids)], 1) + self.frozen
        x = x + self.positions(x)
        mask = torch.cat([torch.ones_like(mask[:, :1]), mask], 1).unsqueeze(-1).to(x.dtype)
        for block in self.blocks:
            x = block(x, mask=mask)
        x = self.norm(self.blocks[0](x)[:, 0])
        return x @ self.embedding.weight.T  # a weight of a module, used without calling it


class Normalised(nn.Module):
    """Running statistics, inside of modules and of the root."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH)) for _ in range(3))
        self.plain = nn.ModuleList(nn.BatchNorm1d(WIDTH, affine=False) for _ in range(3))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        for layer, plain in zip(self.layers, self.plain, strict=True):
            x = plain(layer(x)).relu()
        return x


class Checkpointed(nn.Module):
    """Activation checkpointing outside of the modules."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return x


@dataclass
class State:
    value: Tensor
    size: tuple[int, int]


class Structured(nn.Module):
    """Modules that hand on data classes, dicts, lists, shapes, integers."""

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(WIDTH, WIDTH)

        def forward(self, state: State, extra: dict[str, Any]) -> tuple[State, dict[str, Any]]:
            rows, width = state.size
            value = self.linear(state.value.view(rows, width)) + extra["shift"][0]
            order = value.detach().sum(1).argsort()
            return State(value, state.size), {"shift": [value.mean(0)], "order": order}

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(self.Layer() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        state, extra = State(x, tuple(x.shape)), {"shift": [torch.zeros(WIDTH)]}
        for layer in self.layers:
            state, extra = layer(state, extra)
        return state.value[extra["order"]]


class InPlace(nn.Module):
    """What crosses is changed in place behind the cut."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        first = self.layers[0](x)
        second = self.layers[1](first)
        second += first
        second.relu_()
        return self.layers[2](second).add_(first)


def ids() -> Tensor:
    return torch.randint(VOCABULARY, (ROWS, LENGTH))


def features() -> Tensor:
    return torch.randn(ROWS, WIDTH)


UNCUT: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]]]] = {
    "unet": (UNet, lambda: (torch.randn(ROWS, 3, 8, 8),)),
    "residual_lstm": (ResidualLSTM, lambda: (ids(),)),
    "two_towers": (TwoTowers, lambda: (ids(), ids())),
    "classifier": (Classifier, lambda: (ids(), torch.randint(2, (ROWS, LENGTH)))),
    "normalised": (Normalised, lambda: (features(),)),
    "checkpointed": (Checkpointed, lambda: (features(),)),
    "structured": (Structured, lambda: (features(),)),
    "in_place": (InPlace, lambda: (features(),)),
}
