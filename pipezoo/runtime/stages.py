"""From a model to the stages of a pipeline: built from the seed, and split.

    model --split--> [module, module, module]          every module holds the model's own parameters
    module 0 --> boundary 1 --> module 1 --> boundary 2 --> module 2

The wiring is the static metadata that every message is received with; ``try_out.py`` finds it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipezoo.data.batch import Batch
from pipezoo.runtime.given_inputs import tensors_given
from pipezoo.runtime.wiring import Wiring

Tensors = tuple[torch.Tensor, ...]
LossFunction = Callable[[Any, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Stages:
    """A model in pieces, on the CPU.

    Args:
        model: the unsplit model, which owns every parameter.
        modules: ``[num_stages]``; stage ``i`` takes what stage ``i - 1`` returns, and skips of earlier ones.
        wiring: what enters and leaves each of them, for one microbatch.
        names: ``[num_stages]``; for each stage the name in the unsplit model of every parameter and buffer, by its
            name in the stage.
    """

    model: nn.Module
    modules: tuple[nn.Module, ...]
    wiring: Wiring
    names: tuple[dict[str, str], ...]

    @classmethod
    def of(cls, model: nn.Module, modules: Sequence[nn.Module], wiring: Wiring) -> Stages:
        """Finds the names by identity; a parameter that the model holds twice has its first name."""
        owned = {id(parameter) for parameter in model.parameters()}
        for index, module in enumerate(modules):
            for name, parameter in module.named_parameters():
                if id(parameter) not in owned:
                    raise ValueError(
                        f"parameter {name} of stage {index} is not the model's own; a splitter must not copy"
                    )
        known = {id(tensor): name for name, tensor in (*model.named_parameters(), *model.named_buffers())}
        names = [
            {name: known[id(tensor)] for name, tensor in _tensors(module) if id(tensor) in known} for module in modules
        ]
        return cls(model, tuple(modules), wiring, tuple(names))

    @property
    def num_stages(self) -> int:
        return len(self.modules)

    def parameters(self, stage: int) -> dict[str, nn.Parameter]:
        """The parameters of one stage by their names in the unsplit model."""
        names = self.names[stage]
        return {names[name]: parameter for name, parameter in self.modules[stage].named_parameters()}

    def buffers(self, stage: int) -> dict[str, torch.Tensor]:
        """The buffers of one stage by their names in the unsplit model."""
        names = self.names[stage]
        return {names[name]: buffer for name, buffer in self.modules[stage].named_buffers() if name in names}

    def message_bytes(self, stage: int) -> int:
        """What enters ``stage`` from the one before, for one microbatch, one way; the model's own at its ends."""
        plans = self.wiring.stages
        ends = {0: plans[0].inputs, self.num_stages: plans[-1].outputs}
        hops = {hop.after: hop.forms for hop in self.wiring.hops if hop.after == hop.before + 1}
        return sum(form.numel() * form.element_size() for form in (ends | hops)[stage])

    def digest(self) -> str:
        """A hash of every parameter and buffer of the whole model, and of where each is after the cut."""
        sha = hashlib.sha256(repr([sorted(names.items()) for names in self.names]).encode())
        for name, tensor in sorted(_tensors(self.model)):
            sha.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
            sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return sha.hexdigest()


def _tensors(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def make_model(build: Callable[[], nn.Module], seed: int, dtype: torch.dtype) -> nn.Module:
    """The model as its constructor makes it from this seed, on the CPU, in training mode.

    Floats become ``dtype``. Complex numbers keep their imaginary part: they become complex128 beside float64, and stay
    as they are otherwise. Integers and booleans stay.
    """
    torch.manual_seed(seed)
    model = build()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            parameter.data = to_dtype(parameter.data, dtype)
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, to_dtype(buffer, dtype))
    return model.train()


def inputs_of(model: nn.Module, batch: Batch, dtype: torch.dtype) -> Tensors:
    """The tensors among the model's inputs in the order of its ``forward``, floats in ``dtype``.

    torch hands keyword inputs to every stage of a rank, so there are none: each is bound to its position here, and what
    is no tensor is bound to the model (:mod:`pipezoo.runtime.given_inputs`).

    Raises:
        ValueError: ``forward`` does not take these inputs.
    """
    tensors = tensors_given(model, batch)
    if not tensors:
        raise ValueError(f"the data gives {type(model).__name__}.forward no tensor")
    return tuple(to_dtype(tensor, dtype) for tensor in tensors)


def to_dtype(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``tensor`` in ``dtype`` if it is a float; a complex one in double precision beside float64; else as it is."""
    if tensor.is_complex():
        return tensor.to(torch.complex128) if dtype == torch.float64 else tensor
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def first_rows(tensors: Sequence[torch.Tensor], rows: int) -> Tensors:
    return tuple(tensor[:rows] for tensor in tensors)


def as_sent(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` without its graph, in the memory layout that it has at the other end of a message.

    Values that fill a piece of memory keep their order (channels last, transposed); any other are made contiguous.
    """
    return tensor.detach() if _is_dense(tensor) else tensor.detach().contiguous()


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether the values fill one piece of memory, each once, in whatever order."""
    expected = 1
    for stride, size in sorted((stride, size) for size, stride in zip(tensor.shape, tensor.stride(), strict=True)):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True


def empty(tensors: Tensors) -> Tensors:
    """Tensors without memory that keep shape, memory layout, dtype and ``requires_grad``."""
    return tuple(
        torch.empty_strided(tensor.size(), as_sent(tensor).stride(), dtype=tensor.dtype, device="meta").requires_grad_(
            tensor.requires_grad
        )
        for tensor in tensors
    )
