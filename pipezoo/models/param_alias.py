"""Two stages that share every parameter they have."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.pipelining import pipe_split

from pipezoo.validators import check_int


class ModelWithParamAlias(nn.Module):
    """One matrix and one linear layer, each under two names and used once on either side of the only cut.

        x -> mm_param0 -> + -> lin0 -> relu  |  mm_param1 -> lin1 -> relu     mm_param0 is mm_param1
                     y ---^                                                   lin0 is lin1
                    stage 0                  |          stage 1

    The gradient of a shared parameter is the sum of what both stages contribute.

    Args:
        d_hid: features of input, output and everything between, >= 1.
    """

    default_dhid = 512
    default_batch_size = 256

    def __init__(self, d_hid: int = default_dhid) -> None:
        check_int("d_hid", d_hid, 1)
        super().__init__()
        self.mm_param1 = self.mm_param0 = nn.Parameter(torch.randn(d_hid, d_hid))
        self.lin1 = self.lin0 = nn.Linear(d_hid, d_hid)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """[rows, d_hid], [rows, d_hid] -> [rows, d_hid]"""
        hidden = torch.relu(self.lin0(x.mm(self.mm_param0) + y))
        pipe_split()
        return torch.relu(self.lin1(hidden.mm(self.mm_param1)))
