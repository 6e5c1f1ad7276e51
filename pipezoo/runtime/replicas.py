"""The gradients of replicas, added up in their order, so that the sum has the same bits for any of them.

    replica 0   g0 ─┐
    replica 1   g1 ─┼─►  (g0 + g1) + g2     on every replica, at the stage's REDUCE_GRAD
    replica 2   g2 ─┘

Nothing is divided: a mean loss counts each microbatch as one of all replicas' (``microbatching.py``). What several
stages of a process hold is complete with the last of them. torch's own all_reduce adds in the order of a ring, which is
another one from three replicas on.

Replicas begin equal and move by equal gradients, so they stay equal. Whether they did is asked after the first update
and at the end, by a hash of each parameter: what trains its replicas apart is found there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
import torch.distributed as dist
from torch import nn

from pipezoo.errors import VerificationError
from pipezoo.runtime.mesh import gathered
from pipezoo.runtime.microbatching import total
from pipezoo.runtime.whole import is_shared, local, zeros_of
from pipezoo.schedule.action import Action, Op

Named = Mapping[str, nn.Parameter]
HASH = 16  # bytes for each parameter
BUCKET = 2**25  # bytes of gradients that travel together, at most, but for a larger one


class Reducing(Protocol):
    """What a process does at the ``UNSHARD``, ``REDUCE_GRAD`` and ``RESHARD`` of a stage.

    ``is_due``: whether gradients are added up in this step; those of several may add up to one update.
    """

    is_due: bool

    def __call__(self, stage: int) -> None:
        """Add up the gradients of a stage over the replicas."""
        ...

    def unshard(self, stage: int) -> None:
        """Gather its parameters."""
        ...

    def reshard(self, stage: int) -> None:
        """Free what was gathered."""
        ...


class Reduction:
    """What a process does at the ``REDUCE_GRAD`` of a stage.

    ``is_due``: whether gradients are added up in this step; those of several may add up to one update.

    Args:
        actions: of the process, in their order.
        parameters: those of a stage, by name.
        group: the processes that hold the same stages, in the order of the replicas.
    """

    def __init__(self, actions: Sequence[Action], parameters: Callable[[int], Named], group: dist.ProcessGroup) -> None:
        self._group, self.is_due = group, True
        self._at: dict[int, list[nn.Parameter]] = {}
        stages = [action.stage for action in actions if action.op == Op.REDUCE_GRAD]
        held = {stage: parameters(stage) for stage in stages}
        last = {name: stage for stage in stages for name, p in held[stage].items() if p.requires_grad}
        for name, stage in last.items():
            self._at.setdefault(stage, []).append(held[stage][name])

    def __call__(self, stage: int) -> None:
        """Add up the gradients of a stage that are complete now."""
        add_in_order(self._at.get(stage, ()), self._group)

    def unshard(self, stage: int) -> None:
        """Each replica holds all of its parameters."""

    def reshard(self, stage: int) -> None:
        """There is nothing to free."""


def add_in_order(parameters: Sequence[nn.Parameter], group: dist.ProcessGroup) -> None:
    """Replace each gradient by the sum over the group; zeros stand for a missing one. What nobody has stays None."""
    if not parameters:
        return
    used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8, device=parameters[0].device)
    anywhere = torch.stack(gathered(used, group)).any(dim=0).tolist()
    for bucket in _buckets([parameter for parameter, is_used in zip(parameters, anywhere, strict=True) if is_used]):
        gradients = [local(zeros_of(p) if p.grad is None else p.grad.detach()) for p in bucket]
        summed = _summed(torch.cat([gradient.reshape(-1) for gradient in gradients]), group)
        pieces = summed.split([gradient.numel() for gradient in gradients])
        for parameter, gradient, piece in zip(bucket, gradients, pieces, strict=True):
            whole = piece.view(gradient.shape)
            if is_shared(parameter):
                parameter.grad = zeros_of(parameter) if parameter.grad is None else parameter.grad
                local(parameter.grad).copy_(whole)
            else:
                parameter.grad = whole if gradient.is_contiguous() else torch.empty_like(gradient).copy_(whole)


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Parameters of one dtype whose gradients travel together, in their order."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        num_bytes = sum(p.numel() * p.element_size() for p in (*bucket, parameter))
        if bucket and (parameter.dtype != bucket[0].dtype or num_bytes > BUCKET):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


def _summed(values: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """``[n]``: the sum over the group, each slice of it added up by one member, in the order of all.

    It sends what the ring of an all_reduce sends.
    """
    size, num_values = dist.get_world_size(group), values.numel()
    mine = values.new_zeros(size * -(-num_values // size))
    mine[:num_values] = values
    theirs = torch.empty_like(mine)
    dist.all_to_all_single(theirs, mine, group=group)
    slices = total(theirs.view(size, -1).unbind())
    return torch.cat(gathered(slices, group))[:num_values]


class SharesInTurn:
    """Replicas that one process trains one after the other: the gradients of each, until they are added up.

    Args:
        parameters: of the process.
        num_shares: how many replicas.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], num_shares: int) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._kept: list[list[torch.Tensor | None]] = [[None] * len(self._parameters) for _ in range(num_shares)]

    def begin(self) -> None:
        """Before the first gradient of an update."""
        for kept in self._kept:
            kept[:] = [None] * len(self._parameters)

    def enter(self, share: int) -> None:
        """The gradients that come now are of this share."""
        for parameter, gradient in zip(self._parameters, self._kept[share], strict=True):
            parameter.grad = gradient

    def leave(self, share: int) -> None:
        """They have come."""
        self._kept[share][:] = [parameter.grad for parameter in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None

    def add(self) -> None:
        """Give each parameter the sum over all shares, in their order."""
        for parameter, *shares in zip(self._parameters, *self._kept, strict=True):
            if any(gradient is not None for gradient in shares):
                parameter.grad = total([torch.zeros_like(parameter) if g is None else g for g in shares])


def check_equal(
    named: Mapping[str, torch.Tensor], group: dist.ProcessGroup, when: str, member: str = "replica"
) -> None:
    """Raise VerificationError, on every replica, where one has another value than the first; it names the first one.

    Args:
        member: what a process of the group is called.
    """
    if not named:
        return
    device = next(iter(named.values())).device
    mine = torch.frombuffer(bytearray(b"".join(map(_hash, named.values()))), dtype=torch.uint8).to(device)
    first, *others = (found.reshape(-1, HASH) for found in gathered(mine, group))
    for replica, other in enumerate(others, start=1):
        if (differs := (first != other).any(dim=1)).any():
            name = list(named)[int(differs.nonzero()[0])]
            raise VerificationError(
                f"{member} {replica} has another {name} than {member} 0 {when}: they do not train one model"
            )


def _hash(tensor: torch.Tensor) -> bytes:
    values = local(tensor.detach()).cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.blake2b(values.numpy().data, digest_size=HASH).digest()
