"""torch's own replicas: ``replicate`` and FSDP2's ``fully_shard`` around a stage, driven by a schedule's actions.

    UNSHARD       the parameters of the stage are gathered, before its first action
    F B I W       nothing is sent: gradients add up in the gathered parameters
    REDUCE_GRAD   they are added over the replicas, once, and each keeps the sum of its own shard
    RESHARD       the gathered parameters are freed

Around a split backward torch's defaults lose gradients without a word: parameters that are freed behind a forward are
not found by the input half. So nothing is freed or sent in between, and a stage is wrapped as one whole.

What the optimizer moves are this process's shards, as plain parameters: views of torch's own. A shard of ``replicate``
is all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed._composable.replicate_with_fsdp import replicate
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from pipezoo.runtime.mesh import gathered

WRAPPERS: dict[str, Callable[..., Any]] = {
    "replicate": lambda module, mesh, others: replicate(module, mesh=mesh, ignored_params=others),
    "fsdp": lambda module, mesh, others: fully_shard(
        module, mesh=mesh, reshard_after_forward=False, ignored_params=others
    ),
}


class Sharded:
    """One stage, wrapped.

    Args:
        module: of the stage, on its device; it is changed in place.
        names: of its parameters in the unsplit model, by their names in the stage.
        how: a key of :data:`WRAPPERS`.
        mesh: the replicas of this stage.
    """

    def __init__(self, module: nn.Module, names: Mapping[str, str], how: str, mesh: DeviceMesh) -> None:
        self.module: Any = WRAPPERS[how](module, mesh, _unlisted(module))
        wrapper: Any = fully_shard if how == "fsdp" else replicate
        self._state = wrapper.state(module)
        self._group, self._names = mesh.get_group(), names
        for part in self._wrapped():
            part.set_gradient_divide_factor(1.0)  # each microbatch counts as one of all replicas'
            part.set_force_sum_reduction_for_comms(True)  # which is all that gloo has
        self._wait()
        self._theirs: dict[str, DTensor] = {
            names[name]: parameter for name, parameter in module.named_parameters() if isinstance(parameter, DTensor)
        }
        self.parameters = {
            name: nn.Parameter(parameter.to_local().detach(), parameter.requires_grad)
            for name, parameter in self._theirs.items()
        }

    @property
    def is_split(self) -> bool:
        """Whether each replica holds another part of a parameter."""
        return any(placement.is_shard() for one in self._theirs.values() for placement in one.placements)

    def unshard(self) -> None:
        """Gather the parameters."""
        self.module.unshard()

    def reshard(self) -> None:
        """Free what was gathered."""
        self.module.reshard()

    def reduce(self) -> None:
        """Add up the gradients of all replicas; each of :attr:`parameters` gets its shard of the sum."""
        self._fill()
        self._switch(True)
        for state in self._state._state_ctx.all_states:
            for group in state._fsdp_param_groups:
                group.post_backward()
        self._state._root_post_backward_final_callback()
        self._wait()
        for name, parameter in self._theirs.items():
            found = parameter.grad
            self.parameters[name].grad = None if found is None else found.to_local()  # type: ignore[attr-defined]
            parameter.grad = None

    def whole(self, name: str, shard: torch.Tensor) -> torch.Tensor:
        """The tensor of which each replica has a shard like that of parameter ``name``; all of them call this."""
        like = self._theirs[name]
        mesh, placements, here = like.device_mesh, like.placements, shard.to(like.device)
        made = DTensor.from_local(here, mesh, placements, run_check=False, shape=like.size(), stride=like.stride())
        return made.full_tensor()

    def shape(self, name: str) -> torch.Size:
        """Of the whole parameter."""
        return self._theirs[name].size()

    def shard(self, name: str, whole: torch.Tensor) -> torch.Tensor:
        """This process's part of a tensor like parameter ``name``."""
        like = self._theirs[name]
        for placement in like.placements:
            if placement.is_shard():
                mesh = like.device_mesh
                pieces = torch.chunk(whole, mesh.size(), dim=placement.dim)  # type: ignore[attr-defined]
                at = mesh.get_local_rank()
                return pieces[at].clone() if at < len(pieces) else whole[:0].clone()
        return whole

    def _fill(self) -> None:
        """Zeros for the gradients that other replicas have and this one has not."""
        current = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        if not current:
            return
        used = torch.tensor([p.grad is not None for p in current], dtype=torch.uint8, device=current[0].device)
        for parameter, anywhere in zip(current, torch.stack(gathered(used, self._group)).any(dim=0), strict=True):
            if anywhere and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def _wait(self) -> None:
        """Send nothing and free nothing in a backward."""
        self._switch(False)

    def _switch(self, reduces: bool) -> None:
        self.module.set_is_last_backward(reduces)
        self.module.set_reshard_after_backward(False)
        self.module.set_requires_gradient_sync(reduces)

    def _wrapped(self) -> list[Any]:
        return [part for part in self.module.modules() if isinstance(part, FSDPModule)]


class TorchReduction:
    """What a process does at ``UNSHARD``, ``REDUCE_GRAD`` and ``RESHARD`` of its stages.

    ``is_due``: whether gradients are added up in this step.
    """

    def __init__(self, stages: Mapping[int, Sharded]) -> None:
        self._stages, self.is_due = stages, True

    def __call__(self, stage: int) -> None:
        if stage in self._stages:  # one without parameters is in none
            self._stages[stage].reduce()

    def unshard(self, stage: int) -> None:
        if stage in self._stages:
            self._stages[stage].unshard()

    def reshard(self, stage: int) -> None:
        if stage in self._stages:
            self._stages[stage].reshard()


def _unlisted(module: nn.Module) -> set[nn.Parameter]:
    """Parameters of the modules within that the stage does not list: ghosts of other stages', of one number."""
    listed = set(module.parameters())
    return {p for inner in module.modules() for p in inner.parameters(recurse=False)} - listed
