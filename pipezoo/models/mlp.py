"""A stack of equal two-layer perceptrons, to be cut between any two of them."""

from __future__ import annotations

from torch import Tensor, nn

from pipezoo.models._split_spec import CutBeforeEach
from pipezoo.validators import check_int


class MLPModule(nn.Module):
    """Linear, ReLU, linear; `d_hid` >= 1 features throughout."""

    def __init__(self, d_hid: int) -> None:
        check_int("d_hid", d_hid, 1)
        super().__init__()
        self.net1 = nn.Linear(d_hid, d_hid)
        self.relu = nn.ReLU()
        self.net2 = nn.Linear(d_hid, d_hid)

    def forward(self, x: Tensor) -> Tensor:
        """[rows, d_hid] -> [rows, d_hid]"""
        output: Tensor = self.net2(self.relu(self.net1(x)))
        return output


class MultiMLP(nn.Module):
    """`layers.0` ... of `n_layers` MLPModules; `split_spec` names the cut before every layer but the first.

    Args:
        d_hid: features of input, output and everything between, >= 1.
        n_layers: layers, and thereby the largest number of stages, >= 1.
    """

    split_spec = CutBeforeEach("layers")

    def __init__(self, d_hid: int, n_layers: int = 2) -> None:
        check_int("n_layers", n_layers, 1)
        super().__init__()
        self.layers = nn.ModuleList(MLPModule(d_hid) for _ in range(n_layers))

    def forward(self, x: Tensor) -> Tensor:
        """[rows, d_hid] -> [rows, d_hid]"""
        for layer in self.layers:
            x = layer(x)
        return x
