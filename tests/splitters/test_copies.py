"""Copies of modules: what a hook or a function remembers of a module, its copy remembers of the copy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from pipezoo.splitters._copies import copies


class Hooked(nn.Module):
    """Hooks of every kind, each of which counts in the module."""

    def __init__(self, put: Callable[[Hooked], Any]) -> None:
        super().__init__()
        self.lin = nn.Linear(2, 2)
        self.register_buffer("count", torch.zeros(()))
        self.seen: list[str] = []
        put(self)

    def note(self, *_: Any) -> None:
        self.count += 1
        self.seen.append("called")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x)


def by_closure(module: Hooked) -> Callable[..., None]:
    return lambda *_: module.note()


def with_a_list_of_its_own(module: Hooked) -> Callable[..., None]:
    calls = [0]

    def note(*_: Any) -> None:
        calls[0] += 1
        module.count.fill_(calls[0])
        module.seen.append("called")

    return note


def by_default(module: Hooked) -> Callable[..., None]:
    def note(*_: Any, owner: Hooked = module) -> None:
        owner.note()

    return note


REMEMBERS = {
    "a method": lambda module: module.note,
    "a closure": by_closure,
    "a closure with state": with_a_list_of_its_own,
    "a default": by_default,
    "a partial": lambda module: partial(Hooked.note, module),
}
PLACES = {
    "a parameter": lambda module, hook: module.lin.weight.register_hook(hook),
    "after a parameter": lambda module, hook: module.lin.weight.register_post_accumulate_grad_hook(hook),
    "a forward": lambda module, hook: module.register_forward_hook(hook),
    "before a forward": lambda module, hook: module.register_forward_pre_hook(hook),
    "a backward": lambda module, hook: module.lin.register_full_backward_hook(hook),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("remembers", REMEMBERS)
def test_a_hook_of_the_copy_touches_the_copy_alone(place: str, remembers: str) -> None:
    model = Hooked(lambda module: PLACES[place](module, REMEMBERS[remembers](module)))
    twin: Any = copies([model])[0]
    twin(torch.ones(1, 2, requires_grad=True)).sum().backward()
    assert (twin.count.item(), twin.seen) == (1, ["called"])
    assert (model.count.item(), model.seen) == (0, [])
    model(torch.ones(1, 2, requires_grad=True)).sum().backward()
    assert (model.count.item(), model.seen) == (1, ["called"])


def test_a_function_among_the_attributes_uses_the_copys_parameters() -> None:
    model: Any = nn.Linear(2, 2)
    model.act = lambda x: x * model.weight
    twin: Any = copies([model])[0]
    twin.act(torch.ones(2)).sum().backward()
    assert model.weight.grad is None
    assert twin.weight.grad is not None


def test_a_function_that_calls_itself_is_copied_once() -> None:
    model: Any = nn.Linear(1, 1)

    def power(n: int) -> torch.Tensor:
        return model.weight if n == 1 else model.weight * power(n - 1)

    model.power = power
    twin: Any = copies([model])[0]
    with torch.no_grad():
        twin.weight.fill_(2.0)
    assert twin.power(3).item() == 8.0


def test_what_two_copies_share_they_share_and_what_cannot_be_copied_stays() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    lock = __import__("threading").Lock()
    first.weight.register_hook(lambda grad: grad if lock.acquire() and not lock.release() else None)
    one, two = copies([first, second])
    assert one.weight is two.weight
    one(torch.ones(1, 2)).sum().backward()
    assert not lock.locked()


def test_a_computed_attribute_does_not_lead_back_to_the_original() -> None:
    model: Any = nn.Linear(2, 2)
    model.scale = model.weight * 2
    twin: Any = copies([model])[0]
    assert torch.equal(twin.scale, model.scale)
    assert not twin.scale.requires_grad
