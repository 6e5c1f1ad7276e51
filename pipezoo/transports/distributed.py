"""torch.distributed point to point: between any two processes (gloo), or GPUs (nccl).

    1RECV_F0   post a receive into new memory          1F0   wait for it, take what arrived
    1SEND_F0   hand the outputs over; they are kept until they are out

The lowering puts all messages into one order, so the k-th send between two ranks meets the k-th receive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist

from pipezoo.runtime.mesh import ALONE, Groups
from pipezoo.runtime.transport import Lane, Receive, Send, Tensors, check_form


class Distributed:
    """The process group of a pipeline. Nothing is made before the ranks are."""

    name = "gloo"

    def endpoint(self, rank: int, device: torch.device, groups: Groups = ALONE) -> DistributedEndpoint:
        return DistributedEndpoint(device, groups.pipeline)


class DistributedEndpoint:
    """What one rank sends and receives."""

    def __init__(self, device: torch.device, group: dist.ProcessGroup | None) -> None:
        self._device, self._group = device, group
        self._sent: list[tuple[dist.Work, torch.Tensor]] = []

    def sender(self, lane: Lane) -> Send:
        def send(microbatch: int, tensors: Sequence[torch.Tensor]) -> None:
            self._sent = [(work, kept) for work, kept in self._sent if not work.is_completed()]
            for tensor, form in zip(tensors, lane.forms, strict=True):
                check_form(lane, tensor, form)
                values = _flat(_laid_out(tensor.detach(), form))
                work = dist.isend(values, group=self._group, group_dst=lane.target)
                assert work is not None
                self._sent.append((work, values))

        return send

    def receiver(self, lane: Lane) -> Receive:
        def receive(microbatch: int) -> Callable[[], Tensors]:
            tensors = tuple(
                torch.empty_strided(form.size(), form.stride(), dtype=form.dtype, device=self._device)
                for form in lane.forms
            )
            works = [dist.irecv(_flat(tensor), group=self._group, group_src=lane.source) for tensor in tensors]

            def arrived() -> Tensors:
                for work in works:
                    assert work is not None
                    work.wait()
                return tensors

            return arrived

        return receive

    def begin_step(self) -> None:
        pass

    def end_step(self) -> None:
        for work, _ in self._sent:
            work.wait()
        self._sent.clear()


def _laid_out(tensor: torch.Tensor, form: torch.Tensor) -> torch.Tensor:
    """``tensor`` with the strides of ``form``; copied only where it has others."""
    if tensor.stride() == form.stride():
        return tensor
    made = torch.empty_strided(form.size(), form.stride(), dtype=tensor.dtype, device=tensor.device)
    return made.copy_(tensor)


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """All values in the order in which they lie in memory, as a view."""
    return tensor if tensor.is_contiguous() else tensor.as_strided((tensor.numel(),), (1,))
