"""How the layers of a model are cut where several processes share a stage: key ``model.tp``, names by pattern.

    model.tp.columns   up        each process has some of its outputs     x ──► up ──┬─► part 0 ──► down ──┐
    model.tp.rows      down      each adds a part of every output                    └─► part 1 ──► down ──┴─ sum ──► y
    model.tp.gathered  head      columns whose outputs are put together behind the layer

After R. Shoeybi et al., Megatron-LM (arXiv:1909.08053). What lies between columns and rows sees a part of the features;
all else sees what it sees on one device.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pipezoo.errors import ArgumentError, ConfigError
from pipezoo.validators import check_int, unknown_word

KEY = "model.tp"
KINDS = ("columns", "rows", "gathered")
REFUSED = {  # styles that torch has besides, and what is silently wrong with them here
    "sequence": (
        "cuts the sequence between layers: torch takes a whole one that a stage gets from its neighbour for a part, "
        "and the stage trains on tp times the sequence, with wrong gradients and no error; stages hand on whole values"
    ),
}
Patterns = tuple[str, ...]


@dataclass(frozen=True)
class TensorPlan:
    """The plan of a model.

    Args:
        columns: patterns of names of linear layers and embeddings whose outputs stay in parts.
        rows: of those that take parts, linear layers, or whose rows are shared, embeddings; outputs are whole.
        gathered: of linear layers in columns whose outputs are put together at once.
        packed: by a number, patterns of those of ``columns`` that are so many layers in one, as queries, keys and
            values are: each of these is cut.
        heads: attributes of the model that ``mesh.tp`` has to divide: of attention, the numbers of heads.

    Raises:
        ArgumentError: one of these is no list of patterns, or a number of packed layers below 2.
    """

    columns: Patterns = ()
    rows: Patterns = ()
    gathered: Patterns = ()
    packed: Mapping[int, Patterns] = field(default_factory=dict)
    heads: Patterns = ()

    def __post_init__(self) -> None:
        for name in (*KINDS, "heads"):
            object.__setattr__(self, name, _patterns(name, getattr(self, name)))
        packed = {} if self.packed is None else self.packed
        if not isinstance(packed, Mapping):
            raise ArgumentError("packed", packed, "must be patterns by the number of layers in one", "{3: ['*.qkv']}")
        numbers = {number: check_int("packed", _number(number), 2) for number in packed}
        kept = {numbers[key]: _patterns(f"packed.{key}", patterns) for key, patterns in packed.items()}
        object.__setattr__(self, "packed", kept)

    def __bool__(self) -> bool:
        return bool(self.columns or self.rows or self.gathered)

    def told(self) -> dict[str, Any]:
        """What is there, in plain values."""
        plain = {name: list(getattr(self, name)) for name in (*KINDS, "heads")}
        packed = {"packed": {str(number): list(patterns) for number, patterns in self.packed.items()}}
        return {name: value for name, value in (plain | packed).items() if value}


def plan_of(node: Any) -> TensorPlan:
    """The plan in the node ``model.tp`` of a config; an empty one for None. Raises ConfigError."""
    if node is None:
        return TensorPlan()
    known = [one.name for one in fields(TensorPlan)]
    try:
        if not isinstance(node, Mapping):
            raise ArgumentError("tp", node, "must be lists of patterns", "{columns: ['*.up'], rows: ['*.down']}")
        for name in map(str, node):
            if name in REFUSED:
                raise ArgumentError(f"tp.{name}", node[name], REFUSED[name], known)
            if name not in known:
                raise unknown_word(f"tp.{name}", node[name], "key", known, name)
        return TensorPlan(**node)
    except ArgumentError as error:
        inside = error if error.argument == "tp" else error.inside("tp")
        raise ConfigError(inside.at(KEY), error, error.why) from None


def _patterns(name: str, given: Any) -> Patterns:
    given = () if given is None else (given,) if isinstance(given, str) else given
    if not isinstance(given, (list, tuple)) or not all(isinstance(pattern, str) and pattern for pattern in given):
        raise ArgumentError(name, given, "must be patterns of names", "['blocks.*.up']")
    return tuple(given)


def _number(key: Any) -> Any:
    """Keys of a config may be text."""
    return int(key) if isinstance(key, str) and key.isdigit() else key
