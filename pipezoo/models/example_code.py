"""A model that marks its own cuts, and whose second stage reads a value that carries no gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.pipelining import pipe_split

from pipezoo.validators import check_int


class ExampleCode(nn.Module):
    """Matrix products and linear layers in `splits` stages, cut by `pipe_split()`.

        x -> mm_param0 -> relu -> lin0 |  relu -> + -> mm_param1  | lin1 -> relu | lin2 -> relu | ...
                         cval -> clone -----------^
                    stage 0            |         stage 1          |   stage 2    |   stage 3    | up to 7

    All of `lin0` ... `lin6` exist whatever `splits` is; the forward uses the first `splits` - 1 of them.

    Args:
        d_hid: features of input, output and everything between, >= 1.
        splits: the number of stages, 2..8 (of stages, not of cuts).
    """

    def __init__(self, d_hid: int, splits: int = 2) -> None:
        check_int("d_hid", d_hid, 1)
        check_int("splits", splits, 2, 8)
        super().__init__()
        self.splits = splits
        self.mm_param0 = nn.Parameter(torch.randn(d_hid, d_hid))
        self.mm_param1 = nn.Parameter(torch.randn(d_hid, d_hid))
        self.cval = nn.Buffer(torch.randn(d_hid))
        for i in range(7):
            self.add_module(f"lin{i}", nn.Linear(d_hid, d_hid))

    def forward(self, x: Tensor) -> Tensor:
        """[rows, d_hid] -> [rows, d_hid]"""
        hidden = self.get_submodule("lin0")(torch.relu(x.mm(self.mm_param0)))
        skip = self.cval.clone()  # crosses the first cut beside the activations
        pipe_split()
        hidden = (torch.relu(hidden) + skip).mm(self.mm_param1)
        for i in range(1, self.splits - 1):
            pipe_split()
            hidden = torch.relu(self.get_submodule(f"lin{i}")(hidden))
        return hidden
