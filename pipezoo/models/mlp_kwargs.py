"""The stack of perceptrons once more, with an input that nothing reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipezoo.models._split_spec import CutBeforeEach
from pipezoo.validators import check_int


class MLPKWargModule(nn.Module):
    """Linear, ReLU, linear; takes `unused_kwarg` and ignores it.

    Args:
        d_hid: features of input, output and everything between, >= 1.
        layer_num: position of this layer in its stack, kept as an attribute.
    """

    def __init__(self, d_hid: int, layer_num: int) -> None:
        check_int("d_hid", d_hid, 1)
        super().__init__()
        self.net1 = nn.Linear(d_hid, d_hid)
        self.relu = nn.ReLU()
        self.net2 = nn.Linear(d_hid, d_hid)
        self.layer_num = layer_num

    def forward(self, x: Tensor, unused_kwarg: Tensor = torch.zeros(1)) -> Tensor:  # noqa: B008
        """[rows, d_hid], anything -> [rows, d_hid]"""
        output: Tensor = self.net2(self.relu(self.net1(x)))
        return output


class MultiMLPKwargs(nn.Module):
    """`layers.0` ... of `n_layers` MLPKWargModules; `split_spec` names the cut before every layer but the first.

    The layers are called without `unused_kwarg`: it ends at the door. Split into microbatches it needs a row per
    sample, which its default does not have.

    Args:
        d_hid: features of input, output and everything between, >= 1.
        n_layers: layers, and thereby the largest number of stages, >= 1.
    """

    split_spec = CutBeforeEach("layers")

    def __init__(self, d_hid: int, n_layers: int = 2) -> None:
        check_int("n_layers", n_layers, 1)
        super().__init__()
        self.layers = nn.ModuleList(MLPKWargModule(d_hid, i) for i in range(n_layers))

    def forward(self, x: Tensor, unused_kwarg: Tensor = torch.zeros(1)) -> Tensor:  # noqa: B008
        """[rows, d_hid], anything -> [rows, d_hid]"""
        for layer in self.layers:
            x = layer(x)
        return x
