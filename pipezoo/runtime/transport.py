"""What an executor asks of a transport, and what a transport knows of a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch

from pipezoo.launch.mesh import Mesh
from pipezoo.runtime.mesh import ALONE, Groups
from pipezoo.runtime.wiring import Hop

Tensors = tuple[torch.Tensor, ...]
Send = Callable[[int, Sequence[torch.Tensor]], None]
Receive = Callable[[int], Callable[[], Tensors]]


class Lane(NamedTuple):
    """One direction of one hop between two stages on different ranks.

        stage before ── outputs ──►  stage after        forward
        stage before ◄── gradients ──  stage after      backward

    ``forms`` are examples without memory of the tensors of one microbatch: shape, dtype and memory layout.
    """

    before: int
    after: int
    is_backward: bool
    source: int
    target: int
    forms: Tensors

    @property
    def way(self) -> tuple[int, int]:
        """From which stage to which its messages go."""
        return (self.after, self.before) if self.is_backward else (self.before, self.after)


def lanes_of(hops: Sequence[Hop], stage_to_rank: Sequence[int]) -> list[Lane]:
    """Every lane of a pipeline.

    Args:
        hops: what the stages hand to each other.
        stage_to_rank: where every stage is.
    """
    lanes = []
    for hop in hops:
        source, target = stage_to_rank[hop.before], stage_to_rank[hop.after]
        if source != target:
            lanes.append(Lane(hop.before, hop.after, False, source, target, hop.forms))
            learned = tuple(form for form in hop.forms if form.requires_grad)
            if learned:
                lanes.append(Lane(hop.before, hop.after, True, target, source, learned))
    return lanes


class Endpoint(Protocol):
    """One rank's end of all lanes that begin or end there."""

    def sender(self, lane: Lane) -> Send:
        """``send(microbatch, tensors)``: hands them over and returns at once.

        Raises, when it is called:
            ValueError: a tensor has another shape or dtype than the lane.
        """
        ...

    def receiver(self, lane: Lane) -> Receive:
        """``receive(microbatch)`` asks for the tensors, and returns a function that waits for them."""
        ...

    def begin_step(self) -> None:
        """Nothing that was received in the steps before is used any more."""
        ...

    def end_step(self) -> None:
        """Wait until everything sent is out."""
        ...


class Transport(Protocol):
    """Made before the ranks are."""

    name: str

    def endpoint(self, rank: int, device: torch.device, groups: Groups = ALONE) -> Endpoint:
        """The end of a rank of the pipeline, in its own process, which is in these groups."""
        ...


class Beside:
    """Several pipelines of one mesh, each with a transport of its own.

    Args:
        mesh: of the processes.
        each: ``[dp * tp]``, the parts of the first replica first.
    """

    def __init__(self, mesh: Mesh, each: Sequence[Transport]) -> None:
        self._mesh, self._each, self.name = mesh, each, each[0].name

    def endpoint(self, rank: int, device: torch.device, groups: Groups = ALONE) -> Endpoint:
        _, dp, tp = groups.place
        return self._each[dp * self._mesh.tp + tp].endpoint(rank, device, groups)


class NoMessages:
    """The end of a rank that has all stages: there is nobody to write to."""

    def sender(self, lane: Lane) -> Send:
        raise AssertionError(f"nothing carries what crosses into stage {lane.after}")

    def receiver(self, lane: Lane) -> Receive:
        raise AssertionError(f"nothing carries what crosses into stage {lane.after}")

    def begin_step(self) -> None:
        pass

    def end_step(self) -> None:
        pass


def check_form(lane: Lane, tensor: torch.Tensor, form: torch.Tensor) -> None:
    """Raises ValueError for a tensor that is not what the lane was made for."""
    if tensor.shape != form.shape or tensor.dtype != form.dtype:
        what = f"{'the gradient for ' * lane.is_backward}stage {lane.before}"
        raise ValueError(f"{what}: {_words(tensor)} came out, where the first microbatch had {_words(form)}")


def _words(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype)[6:]} {tuple(tensor.shape)}"
