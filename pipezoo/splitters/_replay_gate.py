"""What stands in a copy of a model where a module of it stood that is not cut.

    model.layers = [layer 0, layer 1]   -->   copy.layers = [Gate(layer 0), Gate(layer 1)]

Every reference to the module leads to the gate, wherever the copy keeps it. A call goes to the gate's board, which
knows what to do with it; any attribute is that of the module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pipezoo.splitters._copies import copies

GHOST = "_pipezoo_ghost"


class Board(Protocol):
    """Who decides what a call of a gate does."""

    def call(self, gate: Gate, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...


class Hidden:
    """A reference that is no submodule."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Shared(Hidden):
    """One that copies have in common."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Shared:
        return self


class Gate(nn.Module):
    """In the place of a module.

    Args:
        module: what is run here; or a ghost of it, a copy without weights, for its attributes alone.
        runs_here: whether it is run here, and its parameters belong to whom the gate belongs to.
        shared: whether copies of the gate need no ghost of their own, as one without any weights.
    """

    def __init__(self, module: nn.Module, name: str, board: Board, runs_here: bool, shared: bool = False) -> None:
        super().__init__()
        self._pipezoo_name, self._pipezoo_board, self._pipezoo_hidden = (
            name,
            board,
            (Shared if shared else Hidden)(module),
        )
        if runs_here:
            self._pipezoo_atom = module
        elif (like := next((p for p in module.parameters() if p.is_floating_point()), None)) is not None:
            # so that a container above that asks next(self.parameters()).dtype is told; `ReplayStage` does not list it
            self.register_parameter(GHOST, nn.Parameter(torch.zeros((), dtype=like.dtype), requires_grad=False))
        self.training = module.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._pipezoo_board.call(self, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "_pipezoo_hidden" not in self.__dict__:
                raise
            return getattr(self.__dict__["_pipezoo_hidden"].value, name)

    def __bool__(self) -> bool:
        return bool(self._pipezoo_hidden.value)

    def __len__(self) -> int:
        return len(self._pipezoo_hidden.value)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._pipezoo_hidden.value)

    def __getitem__(self, index: Any) -> Any:
        return self._pipezoo_hidden.value[index]


def ghosts_of(
    atoms: Mapping[str, nn.Module], blank: Callable[[Tensor], Tensor], kept: Sequence[Tensor] = ()
) -> dict[str, nn.Module]:
    """Copies of modules for their attributes alone; every parameter and buffer, but those ``kept``, is ``blank``."""
    instead: dict[int, Any] = {id(tensor): tensor for tensor in kept}
    for atom in atoms.values():
        for parameter in atom.parameters():
            instead.setdefault(id(parameter), nn.Parameter(blank(parameter), requires_grad=False))
        for buffer in atom.buffers():
            instead.setdefault(id(buffer), blank(buffer))
    return dict(zip(atoms, copies([*atoms.values()], instead=instead), strict=True))
