"""A model that marks its own cuts and takes a second input, which has a default of a fixed shape."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.pipelining import pipe_split

from pipezoo.validators import check_int


class ModelWithKwargs(nn.Module):
    """Matrix products and linear layers in `splits` stages, with an input `y` that is added in the first.

        x -> mm_param0 -> + -> lin0 -> relu | mm_param1 -> lin1 -> relu | lin2 -> relu | ...
                     y ---^
                   stage 0                  |          stage 1          |   stage 2    | up to 7

    All of `lin0` ... `lin7` exist whatever `splits` is; the forward uses the first `splits` of them. The default
    of `y` fits DEFAULT_BATCH_SIZE rows of DEFAULT_DHID features and nothing else: give `y`.

    Args:
        d_hid: features of input, output and everything between, >= 1.
        splits: the number of stages, 2..8 (of stages, not of cuts).
    """

    DEFAULT_DHID = 512
    DEFAULT_BATCH_SIZE = 256

    def __init__(self, d_hid: int = DEFAULT_DHID, splits: int = 2) -> None:
        check_int("d_hid", d_hid, 1)
        check_int("splits", splits, 2, 8)
        super().__init__()
        self.splits = splits
        self.mm_param0 = nn.Parameter(torch.randn(d_hid, d_hid))
        self.mm_param1 = nn.Parameter(torch.randn(d_hid, d_hid))
        for i in range(8):
            self.add_module(f"lin{i}", nn.Linear(d_hid, d_hid))

    def forward(self, x: Tensor, y: Tensor = torch.zeros(DEFAULT_BATCH_SIZE, DEFAULT_DHID)) -> Tensor:  # noqa: B008
        """[rows, d_hid], [rows, d_hid] -> [rows, d_hid]"""
        hidden = torch.relu(self.get_submodule("lin0")(x.mm(self.mm_param0) + y))
        pipe_split()
        hidden = torch.relu(self.get_submodule("lin1")(hidden.mm(self.mm_param1)))
        for i in range(2, self.splits):
            pipe_split()
            hidden = torch.relu(self.get_submodule(f"lin{i}")(hidden))
        return hidden
