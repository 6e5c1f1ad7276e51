"""Where a model can be cut, and where it is: the recorded forward, its modules opened as far as the cut needs it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from pipezoo.errors import ArgumentError
from pipezoo.splitters._names import find_module
from pipezoo.splitters._partition import group_balanced
from pipezoo.splitters._replay_atoms import CONTAINERS, above, atoms_of, can_open
from pipezoo.splitters._replay_record import Call, Form, Record, Value, has_parameters, record, without
from pipezoo.splitters._weigh import num_parameters

ROUNDS = 8  # forwards at most that look for places
LIGHT = 0.02  # share of a forward that every stage may do over again, such as the table of a rotary embedding
SHOWN = 4  # places that an error names


@dataclass(frozen=True)
class Found:
    """A recorded forward.

    Args:
        record: of the modules that are not cut.
        atoms: their names; those that run on every stage, as code between the others does, are none.
    """

    record: Record
    atoms: tuple[str, ...]

    @property
    def calls(self) -> tuple[Call, ...]:
        """Those that a cut can lie before, in their order."""
        return self.record.calls[:-1]


def recorded(
    model: nn.Module,
    num_stages: int | None,
    example: tuple[Tensor, ...],
    at: Sequence[str] | None,
    by: str,
    repeats: int,
) -> Found:
    """One forward of ``model``, recorded in pieces fine enough for the cut that is asked for. Raises ValueError."""
    wanted = num_stages or len(at or [0]) + 1
    opened: set[str] = set()
    for name in _checked(model, at or ()):
        opened |= {name for name in above(name) if not isinstance(model.get_submodule(name), CONTAINERS)}
    for _ in range(ROUNDS):
        atoms = atoms_of(model, opened)
        heard = record(model, atoms, example, by, repeats)
        free = frozenset(name for name in atoms if _runs_everywhere(model, name, heard))
        found = Found(without(heard, free), tuple(name for name in atoms if name not in free))
        more = _bypassed(model, found) or _to_open(model, found, wanted, at is None)
        if not more:
            break
        opened |= more
    return found


def _checked(model: nn.Module, at: Sequence[str]) -> list[str]:
    if isinstance(at, str):
        raise ArgumentError("at", at, "must be a list of names of modules")
    for name in at:
        find_module(model, str(name), "at")
    return [str(name) for name in at]


def _runs_everywhere(model: nn.Module, name: str, heard: Record) -> bool:
    """Whether a module is left in the code between the others: one of masks, positions, or an activation in place."""
    calls = [call for call in heard.calls if call.name == name]
    if has_parameters(model.get_submodule(name)) or any(buffer.startswith(f"{name}.") for buffer in heard.changing):
        return False
    if any(call.changes_inputs for call in calls):
        return True
    total = sum(call.weight for call in heard.calls)
    return not any(call.reads or call.weight > LIGHT * total for call in calls)


def _bypassed(model: nn.Module, found: Found) -> set[str]:
    """Modules that are never called themselves, but whose inner modules are."""
    called = {call.name for call in found.calls}
    read = set().union(*(call.parameters for call in found.record.calls))
    return {
        name
        for name in found.atoms
        if name not in called and can_open(model.get_submodule(name)) and any(p.startswith(f"{name}.") for p in read)
    }


def _to_open(model: nn.Module, found: Found, wanted: int, may_balance: bool) -> set[str]:
    """The heaviest modules, where there are too few to cut between, or one is heavier than a stage should be."""
    weights = _weights(model, found)
    openable = [i for i, call in enumerate(found.calls) if can_open(model.get_submodule(call.name))]
    openable.sort(key=lambda i: -weights[i])
    more: set[str] = set()
    count = len(found.calls)
    for i in openable:
        if count >= wanted:
            break
        more.add(found.calls[i].name)
        count += len([*model.get_submodule(found.calls[i].name).children()]) - 1
    if not more and may_balance and openable and weights[openable[0]] > sum(weights) / wanted:
        heaviest = found.calls[openable[0]].name
        if any(isinstance(part, CONTAINERS) and len(part) > 1 for part in model.get_submodule(heaviest).modules()):
            more.add(heaviest)
    return more


def cut(model: nn.Module, found: Found, num_stages: int | None, at: Sequence[str] | None) -> list[range]:
    """The calls of every stage. Raises ValueError where there are too few places."""
    starts = [0, *_starts(model, found, at)] if at is not None else list(range(len(found.calls)))
    wanted = num_stages if num_stages is not None else len(starts) if at is not None else min(2, len(starts))
    if not 1 <= wanted <= len(starts):
        raise _too_few(model, found, wanted, len(starts), at)
    weights, ends = _weights(model, found), [*starts[1:], len(found.calls)]
    pieces = [sum(weights[start:end]) for start, end in zip(starts, ends, strict=True)]
    groups = group_balanced(pieces, wanted)
    bounds = [starts[group.start] for group in groups] + [len(found.calls)]
    light = [
        not weight and (at is None or _is_bare(model, call)) for weight, call in zip(weights, found.calls, strict=True)
    ]
    bounds = _with_light_cuts(found, bounds, light)
    return [range(start, end) for start, end in pairwise(bounds)]


def _too_few(model: nn.Module, found: Found, wanted: int, most: int, at: Sequence[str] | None) -> ArgumentError:
    if at is not None:
        return ArgumentError("num_stages", wanted, f"split.at makes {most} stage(s)", f"1..{most}")
    name = type(model).__name__
    why = f"{name} calls {most} module(s) with a place to cut before the next"
    if most < 2:
        why = f"{name} has no place to cut: its forward calls {most} module(s)"
    return ArgumentError("num_stages", wanted, why, f"1..{max(most, 1)}")


def _starts(model: nn.Module, found: Found, at: Sequence[str]) -> list[int]:
    """The first calls of the modules named."""
    starts: dict[int, str] = {}
    for name in at:
        inside = [i for i, call in enumerate(found.calls) if call.name == name or call.name.startswith(f"{name}.")]
        if not inside:
            valid = _shown([call.name for call in found.calls[1:]])
            raise ArgumentError("at", name, f"the forward of {type(model).__name__} does not call it", valid)
        if inside[0] == 0:
            valid = _shown([call.name for call in found.calls[1:]])
            raise ArgumentError("at", name, "is where the forward begins, so there is nothing before it", valid)
        if inside[0] in starts:
            raise ArgumentError("at", name, f"is where {starts[inside[0]]} begins, which is listed too")
        starts[inside[0]] = name
    return sorted(starts)


def _shown(names: Collection[str]) -> str:
    listed = list(dict.fromkeys(names))
    return ", ".join(listed[:SHOWN]) + (", ..." if len(listed) > SHOWN else "")


def _weights(model: nn.Module, found: Found) -> list[float]:
    """By the measure asked for; by parameters where that is zero for all."""
    weights = [call.weight for call in found.calls]
    if any(weights):
        return weights
    return [num_parameters(model.get_submodule(call.name)) for call in found.calls]


def _is_bare(model: nn.Module, call: Call) -> bool:
    return not has_parameters(model.get_submodule(call.name))


def _with_light_cuts(found: Found, bounds: Sequence[int], light: Sequence[bool]) -> list[int]:
    """Each cut moved over calls that weigh nothing, to where the fewest bytes cross."""
    moved = list(bounds)
    for cut in range(1, len(bounds) - 1):
        low = high = moved[cut]
        while low - 1 > moved[cut - 1] and light[low - 1]:
            low -= 1
        while high + 1 < bounds[cut + 1] and light[high]:
            high += 1
        sizes = {at: (crossing_bytes(found.record.calls, at), abs(at - bounds[cut])) for at in range(low, high + 1)}
        moved[cut] = min(sizes, key=lambda at: sizes[at])
    return moved


def crossing(calls: Sequence[Call], at: int) -> list[Value]:
    """The outputs of calls before ``at`` that it or a later one reads."""
    return sorted({read for call in calls[at:] for read in call.reads if read.call < at})


def crossing_bytes(calls: Sequence[Call], at: int) -> int:
    forms: list[Form] = [calls[value.call].leaves[value.place] for value in crossing(calls, at)]
    return sum(prod(form.shape) * form.dtype.itemsize for form in forms)


def value_names(calls: Sequence[Call]) -> Mapping[Value, str]:
    """``layers.0:0``, and ``embed#1:0`` where a module is called a second time."""
    count: dict[str, int] = {}
    names: dict[Value, str] = {}
    for index, call in enumerate(calls):
        number = count[call.name] = count.get(call.name, -1) + 1
        again = f"#{number}" if number else ""
        names |= {Value(index, place): f"{call.name}{again}:{place}" for place in range(len(call.leaves))}
    return names
