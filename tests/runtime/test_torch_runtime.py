"""What `executor=torch` takes from torch's pipelining classes is there in the torch that is installed."""

from __future__ import annotations

import ast
import inspect
import textwrap

import pytest

from pipezoo.runtime.torch_runtime import Stage, TorchSchedule

OURS = {
    Stage: {"_begin", "_sendable", "drawing", "drawing_again", "saving"},
    TorchSchedule: set(),
}  # methods that are no override
OUR_STATE = {"recorder", "meter", "draws", "targets", "_wants_gradient", "_losses"}


def methods(one: type) -> set[str]:
    return {name for name, value in vars(one).items() if inspect.isfunction(value)}


def of_parents(one: type, name: str) -> object:
    return next((vars(parent)[name] for parent in one.__mro__[1:] if name in vars(parent)), None)


@pytest.mark.parametrize("one", OURS)
def test_every_overridden_method_is_a_method_of_the_parent(one: type) -> None:
    assert {name for name in methods(one) if of_parents(one, name) is None} == OURS[one]


@pytest.mark.parametrize("one", OURS)
def test_every_overridden_method_takes_the_arguments_of_the_parent(one: type) -> None:
    wrong = []
    for name in methods(one) - OURS[one] - {"__init__"}:
        wanted = inspect.signature(of_parents(one, name))  # type: ignore[arg-type]
        values = [parameter for parameter in wanted.parameters.values() if parameter.kind not in (2, 4)]
        try:
            inspect.signature(vars(one)[name]).bind(*values)
        except TypeError as error:
            wrong.append(f"{one.__name__}.{name}{wanted}: {error}")
    assert wrong == []


@pytest.mark.parametrize("one", OURS)
def test_every_attribute_that_is_read_is_written_by_a_parent_or_by_us(one: type) -> None:
    known = {name for parent in one.__mro__ for name in vars(parent)}
    written = known.union(*(attributes(parent, ast.Store) for parent in one.__mro__[:-1]))
    assert attributes(one, ast.Load) - written == set()


@pytest.mark.parametrize("one", OURS)
def test_every_attribute_that_is_written_is_read_by_a_parent_or_is_our_state(one: type) -> None:
    read = set().union(*(attributes(parent, ast.Load) for parent in one.__mro__[1:-1]))
    assert attributes(one, ast.Store) - OUR_STATE - read == set()


def attributes(one: type, how: type[ast.expr_context]) -> set[str]:
    """The names x of every ``self.x`` that the source of a class loads or stores."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(one)))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, how)]
    return {node.attr for node in found if isinstance(node.value, ast.Name) and node.value.id == "self"}


def test_a_name_that_torch_dropped_is_found() -> None:
    class Parent:
        def kept(self) -> None: ...

    class Child(Parent):
        def kept(self) -> None: ...

        def dropped(self) -> None: ...

    assert {name for name in methods(Child) if of_parents(Child, name) is None} == {"dropped"}
