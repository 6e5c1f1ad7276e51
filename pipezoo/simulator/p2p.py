"""What a message takes: between any two ranks, or by how far apart they stand.

rank   0       1       2       3            level 0: of one node     level 1: of one rack     level 2: farther
node   0       0       1       1
rack   0       0       0       1            places = ((0, 0), (0, 0), (1, 0), (1, 1)), nearest first
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipezoo.errors import ArgumentError
from pipezoo.validators import check_int, check_number

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class P2P:
    """A message between two ranks takes ``latency`` seconds and its bytes over ``bandwidth`` (bytes per second)."""

    latency: float = 0.0
    bandwidth: float = math.inf

    def __post_init__(self) -> None:
        object.__setattr__(self, "latency", check_number("latency", self.latency))
        object.__setattr__(self, "bandwidth", check_number("bandwidth", self.bandwidth, infinite=True))
        if self.bandwidth == 0:
            raise ArgumentError("bandwidth", self.bandwidth, "must be a number > 0, in bytes per second")

    def seconds(self, num_bytes: Floats) -> Floats:
        return self.latency + num_bytes / self.bandwidth

    def to_dict(self) -> dict[str, float]:
        return {"latency": self.latency} | ({} if math.isinf(self.bandwidth) else {"bandwidth": self.bandwidth})


@dataclass(frozen=True)
class Links:
    """What messages take by where ranks stand.

    Args:
        levels: what each link takes, the nearest first; what two ranks that share nothing use stands last.
        places: for each rank, what it is in at each level but the last: its node, its rack.

    Raises:
        ArgumentError: a place has another number of levels than the levels ask for.
    """

    levels: tuple[P2P, ...]
    places: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not self.levels:
            raise ArgumentError("links.levels", [], "needs at least one", "[{latency, bandwidth}]")
        for rank, place in enumerate(self.places):
            if len(place) != len(self.levels) - 1:
                why = f"needs {len(self.levels) - 1} numbers, one for each level below the last link"
                raise ArgumentError(f"links.places[{rank}]", [*place], why)
            for number in place:
                check_int(f"links.places[{rank}]", number, 0)

    def level(self, rank: int, other: int) -> int:
        """Which link two ranks use: the first level at which they are in the same."""
        pairs = zip(self.places[rank], self.places[other], strict=True)
        return next((level for level, (one, two) in enumerate(pairs) if one == two), len(self.levels) - 1)

    def seconds(self, rank: int, other: int, num_bytes: float) -> float:
        """What a message of so many bytes takes; 0 within a rank."""
        return 0.0 if rank == other else float(self.levels[self.level(rank, other)].seconds(np.float64(num_bytes)))

    @property
    def num_ranks(self) -> int:
        return len(self.places)

    @classmethod
    def from_dict(cls, data: object) -> Links:
        """Read ``{levels: [{latency: 1e-6, bandwidth: 1e9}], places: [[0], [0], [1]]}``; raises ArgumentError."""
        if not isinstance(data, dict) or set(data) != {"levels", "places"}:
            raise ArgumentError("links", data, "must have the keys levels, places")
        if not all(isinstance(value, Sequence) and not isinstance(value, str) for value in data.values()):
            raise ArgumentError("links", data, "levels and places must be lists")
        links = []
        for number, link in enumerate(data["levels"]):
            if not isinstance(link, dict) or not set(link) <= {"latency", "bandwidth"}:
                raise ArgumentError(f"links.levels[{number}]", link, "must have the keys latency, bandwidth")
            links.append(P2P(**link))
        for rank, place in enumerate(data["places"]):
            if not isinstance(place, Sequence) or isinstance(place, str):
                raise ArgumentError(f"links.places[{rank}]", place, "must be a list of numbers")
        return cls(tuple(links), tuple(map(tuple, data["places"])))

    def to_dict(self) -> dict[str, Any]:
        """What :meth:`from_dict` reads."""
        return {"levels": [link.to_dict() for link in self.levels], "places": [[*place] for place in self.places]}
