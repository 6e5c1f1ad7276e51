"""A model of the matrix whose stages hand dicts on, one tensor of which is of integers and has no gradient.

x --> layer 0 --{hidden, gate, scale}--> layer 1 --{hidden, gate, scale}--> ... --> head --> y
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Layer(nn.Module):
    """A gated perceptron; takes a tensor, or what a layer returns."""

    def __init__(self, d_hid: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(d_hid, d_hid)
        self.gate = nn.Linear(d_hid, d_hid)

    def forward(self, value: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
        before = value if isinstance(value, dict) else {"hidden": value, "gate": torch.ones_like(value)}
        hidden = self.hidden(before["hidden"]).relu() * before["gate"]
        return {"hidden": hidden, "gate": self.gate(hidden).sigmoid(), "scale": torch.full((len(hidden), 1), 2)}


class Head(nn.Module):
    """A linear layer over what the last layer returns."""

    def __init__(self, d_hid: int) -> None:
        super().__init__()
        self.out = nn.Linear(d_hid, d_hid)

    def forward(self, value: dict[str, Tensor]) -> Tensor:
        return self.out(value["hidden"] * value["gate"]) * value["scale"]


class Dicts(nn.Module):
    """``n_layers`` gated perceptrons of ``d_hid`` features and a head, [rows, d_hid] -> [rows, d_hid]."""

    def __init__(self, d_hid: int, n_layers: int = 4) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(d_hid) for _ in range(n_layers))
        self.head = Head(d_hid)

    def forward(self, value: Tensor) -> Tensor:
        for layer in self.layers:
            value = layer(value)
        return torch.as_tensor(self.head(value))
