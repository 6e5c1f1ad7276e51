"""``launch=processes``: one process a rank on this machine."""

from __future__ import annotations

from dataclasses import dataclass

from pipezoo.validators import check_bool, check_int, check_number, check_word

_METHODS = ("fork", "spawn")


@dataclass(frozen=True)
class Processes:
    """``launch=processes``: one process a rank on this machine.

    Args:
        threads: of each rank; None: the cores dealt evenly to the ranks, at least 1.
        start_method: ``fork`` or ``spawn``; None: fork where it is safe.
        step_timeout: seconds without progress after which a run is given up.
        first_step_timeout: the same until the first step is done.
        emulate: whether an action takes as long as the experiment's cost says, whatever it computes.
    """

    threads: int | None = None
    start_method: str | None = None
    step_timeout: float = 60.0
    first_step_timeout: float = 120.0
    emulate: bool = False

    def __post_init__(self) -> None:
        check_bool("emulate", self.emulate)
        if self.threads is not None:
            check_int("threads", self.threads, 1)
        if self.start_method is not None:
            check_word("start_method", self.start_method, _METHODS, "method")
        for name in ("step_timeout", "first_step_timeout"):
            check_number(name, getattr(self, name), above=True, listed=True)
