"""The norm of all gradients of a model, of which every rank holds a part.

    rank 0     |g0|      |g2|          norms of the parameters that it holds
    rank 1          |g1|      |g3|
    all        |g0| |g1| |g2| |g3|     gathered; a parameter that several ranks hold counts once
               └─ the norm of these, in the order of the model: the same bits on every rank, and on one device

Sums of squares by rank, added up, would be another sum: its last bit walks through the factor into every parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.distributed as dist
from torch import nn

from pipezoo.runtime.mesh import gathered
from pipezoo.runtime.whole import whole

ABSENT = -1.0  # of a parameter that has no gradient; a norm is never negative


class GradientNorm:
    """Called by every rank at the same moment.

    Args:
        parameters: by name, all of the model that learn, in its order.
        owner: for each of them the process that tells its norm.
        process: this one, among those of the pipeline.
        group: of all of these processes, in their order; None: all that there are.
        whole: the whole gradient of a parameter, from what this process holds of it.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        owner: Mapping[str, int],
        process: int,
        group: dist.ProcessGroup | None = None,
        whole: Callable[[str, torch.Tensor], torch.Tensor] = lambda name, gradient: gradient,
    ) -> None:
        held = {name: parameter for name, parameter in parameters.items() if name in owner}  # one that no stage uses
        self._group, self._whole = group, whole
        self._own = [(place, name) for place, name in enumerate(held) if owner[name] == process]
        self._owners = [owner[name] for name in held]
        self._dtypes = [parameter.dtype.to_real() for parameter in held.values()]

    def __call__(self, gradients: Mapping[str, torch.Tensor | None], device: torch.device) -> torch.Tensor:
        """The norm over all ranks, where at least one has a gradient; else 0."""
        mine = torch.full((len(self._owners),), ABSENT, dtype=torch.float64)
        own = [(place, name, gradients.get(name)) for place, name in self._own]
        found = [(place, self._whole(name, gradient)) for place, name, gradient in own if gradient is not None]
        if found:
            norms = torch.stack([whole(torch.linalg.vector_norm(gradient)).double() for _, gradient in found])
            mine[[place for place, _ in found]] = norms.cpu()
        told = [
            table[place].to(device, dtype)
            for place, (table, dtype) in enumerate(zip(self._tables(mine, device), self._dtypes, strict=True))
            if table[place] != ABSENT
        ]
        return torch.nn.utils.get_total_norm(told, foreach=False)

    def _tables(self, mine: torch.Tensor, device: torch.device) -> Sequence[torch.Tensor]:
        """For each parameter, the norms that its owner told."""
        tables = [table.cpu() for table in gathered(mine.to(device), self._group)]
        return [tables[owner] for owner in self._owners]
