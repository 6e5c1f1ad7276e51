"""Messages between the ranks of a pipeline: torch.distributed point to point, in the order that the lowering gave.

    1RECV_F0   post a receive into new memory          1F0   wait for it, take what arrived
    1SEND_F0   hand the outputs over; they are kept until they are out

Shapes, dtypes and memory layouts are those of the boundary: both ends know them, so a message is nothing but values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as dist

Tensors = tuple[torch.Tensor, ...]


class Posted(NamedTuple):
    """Receives that were asked for, and the tensors that they fill."""

    works: list[dist.Work]
    tensors: Tensors


class Outbox:
    """What this rank has sent, and must keep until it is out."""

    def __init__(self) -> None:
        self._sent: list[tuple[dist.Work, torch.Tensor]] = []

    def send(self, tensors: Sequence[torch.Tensor], like: Sequence[torch.Tensor], to: int) -> None:
        """Send each tensor in the layout of its boundary.

        Raises:
            ValueError: a tensor has another shape or dtype than the boundary says.
        """
        self._sent = [(work, tensor) for work, tensor in self._sent if not work.is_completed()]
        for tensor, form in zip(tensors, like, strict=True):
            if tensor.shape != form.shape or tensor.dtype != form.dtype:
                raise ValueError(f"{_words(tensor)} came out, where the first microbatch had {_words(form)}")
            values = _flat(_laid_out(tensor.detach(), form))
            work = dist.isend(values, to)
            assert work is not None
            self._sent.append((work, values))

    def finish(self) -> None:
        """Wait until everything is out."""
        for work, _ in self._sent:
            work.wait()
        self._sent.clear()


def post_receives(like: Sequence[torch.Tensor], device: torch.device, source: int) -> Posted:
    """Ask for one tensor after the other, each in memory of its own."""
    tensors = tuple(torch.empty_strided(form.size(), form.stride(), dtype=form.dtype, device=device) for form in like)
    works = [dist.irecv(_flat(tensor), source) for tensor in tensors]
    return Posted([work for work in works if work is not None], tensors)


def arrived(posted: Posted) -> Tensors:
    """The tensors, once all of them are there."""
    for work in posted.works:
        work.wait()
    return posted.tensors


def _laid_out(tensor: torch.Tensor, form: torch.Tensor) -> torch.Tensor:
    """``tensor`` with the strides of ``form``; copied only where it has others."""
    if tensor.stride() == form.stride():
        return tensor
    made = torch.empty_strided(form.size(), form.stride(), dtype=tensor.dtype, device=tensor.device)
    return made.copy_(tensor)


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """All values in the order in which they lie in memory, as a view."""
    return tensor if tensor.is_contiguous() else tensor.as_strided((tensor.numel(),), (1,))


def _words(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype)[6:]} {tuple(tensor.shape)}"
