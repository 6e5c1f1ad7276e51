"""Faults on purpose: what can happen to a rank, at an action of your choice, to see what becomes of a run.

    python -m pipezoo model=gpt stages=4 fault=kill fault.rank=1 fault.at=1B3 fault.step=2

A rank notes each action before it executes it; an armed rank is struck at the one that was asked for. One class a fault
and one YAML file each in ``conf/fault/``; ``docs/faults.md`` has what becomes of a run under each of them.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from pipezoo.errors import ConfigError
from pipezoo.schedule.action import Action
from pipezoo.supervisor.worker_channel import Phase, WorkerChannel
from pipezoo.validators import check_int, unknown_word

if TYPE_CHECKING:
    from torch import nn

ONCE = (Phase.START, Phase.JOIN, Phase.BUILD, Phase.LEAVE)  # phases of a run, not of each of its steps
TEXT = "this error was asked for by fault={}"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to one rank, once.

    Args:
        rank: the rank that is struck.
        at: before which of its actions, like ``1B3`` or ``1RECV_F3``, or in which phase, in lower case; None: when the
            step begins.
        step: in which step; counts from 0.
    """

    rank: int = 0
    at: str | None = None
    step: int = 0

    def __post_init__(self) -> None:
        check_int("rank", self.rank, 0)
        check_int("step", self.step, 0)

    def inject(self, modules: Sequence[nn.Module]) -> None:
        """Do it; ``modules``: the stages of the rank."""
        raise NotImplementedError

    def moment(self, actions: Sequence[Sequence[Action]], steps: range) -> tuple[int, int]:
        """The step and the index of the action, or the :class:`Phase`, at which it strikes.

        Raises:
            ConfigError: the run never comes there.
        """
        if self.rank >= len(actions):
            raise ConfigError(f"fault.rank={self.rank}: there are {len(actions)} ranks; valid: 0..{len(actions) - 1}")
        phases = {phase.name.lower(): phase for phase in Phase}
        own = {str(action): i for i, action in enumerate(actions[self.rank])}
        at = self.at or "batch"
        if at not in phases and at not in own:
            raise ConfigError(
                f"fault.at={at}: rank {self.rank} never comes there; valid: {', '.join(phases)}, "
                f"or one of its actions: {', '.join([*own][:12])}{' ...' if len(own) > 12 else ''}"
            )
        if at in phases and phases[at] in ONCE:
            return steps[-1] if phases[at] == Phase.LEAVE else 0, phases[at]
        if self.step not in steps:
            raise ConfigError(f"fault.step={self.step}: is no step of this run; valid: {steps[0]}..{steps[-1]}")
        return self.step, phases[at] if at in phases else own[at]


class FaultInjector(WorkerChannel):
    """A link of a rank that a fault strikes."""

    def __init__(
        self, channel: WorkerChannel, fault: Fault, moment: tuple[int, int], modules: Sequence[nn.Module]
    ) -> None:
        vars(self).update(vars(channel))
        self._fault, self._moment, self._modules = fault, moment, modules
        self.note(Phase.START)

    def note(self, action: int) -> None:
        super().note(action)
        if (self.step, action) == self._moment:
            kind = type(self._fault).__name__
            os.write(2, f"----- rank {self._fault.rank}: {kind} strikes at {time.time():.3f}\n".encode())
            self._fault.inject(self._modules)


@dataclass(frozen=True, kw_only=True)
class Raise(Fault):
    """The rank raises an exception."""

    def inject(self, modules: Sequence[nn.Module]) -> NoReturn:
        raise RuntimeError(TEXT.format("raise"))


@dataclass(frozen=True, kw_only=True)
class Kill(Fault):
    """The rank is killed by a signal, as the system does when memory runs out (SIGKILL), or a bad pointer (SIGSEGV)."""

    signal: str = "SIGKILL"

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [number.name for number in signal.Signals]
        if self.signal not in names:
            raise unknown_word("signal", self.signal, "signal", names)

    def inject(self, modules: Sequence[nn.Module]) -> None:
        os.kill(os.getpid(), signal.Signals[self.signal])


@dataclass(frozen=True, kw_only=True)
class Stop(Fault):
    """The rank is halted, as a debugger does; nothing of it runs any more, and SIGTERM does not reach it."""

    def inject(self, modules: Sequence[nn.Module]) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)


@dataclass(frozen=True, kw_only=True)
class Hang(Fault):
    """The rank waits for something that never comes; with ``seconds``, it is only slow."""

    seconds: float | None = None

    def inject(self, modules: Sequence[nn.Module]) -> None:
        threading.Event().wait(self.seconds)


@dataclass(frozen=True, kw_only=True)
class Spin(Fault):
    """The rank computes for ever."""

    def inject(self, modules: Sequence[nn.Module]) -> None:
        while True:
            pass


@dataclass(frozen=True, kw_only=True)
class Exit(Fault):
    """The rank leaves without a word; ``cleanly``: through ``sys.exit``."""

    code: int = 0
    cleanly: bool = False

    def inject(self, modules: Sequence[nn.Module]) -> NoReturn:
        if self.cleanly:
            sys.exit(self.code)
        os._exit(self.code)


@dataclass(frozen=True, kw_only=True)
class OutOfMemory(Fault):
    """The rank asks for more memory than there is."""

    def inject(self, modules: Sequence[nn.Module]) -> None:
        import resource

        import torch

        resource.setrlimit(resource.RLIMIT_AS, (1 << 36, resource.RLIM_INFINITY))
        torch.empty(1 << 38)


@dataclass(frozen=True, kw_only=True)
class Thread(Fault):
    """The rank raises while a thread of its own goes on for ever, which keeps an ordinary interpreter from ending."""

    def inject(self, modules: Sequence[nn.Module]) -> NoReturn:
        threading.Thread(target=threading.Event().wait, daemon=False).start()
        raise RuntimeError(TEXT.format("thread"))


@dataclass(frozen=True, kw_only=True)
class DiskFull(Fault):
    """The rank cannot write another byte to any file."""

    def inject(self, modules: Sequence[nn.Module]) -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


@dataclass(frozen=True, kw_only=True)
class Poison(Fault):
    """A parameter of the rank becomes NaN."""

    def inject(self, modules: Sequence[nn.Module]) -> None:
        _first_parameter(modules).data.fill_(float("nan"))


@dataclass(frozen=True, kw_only=True)
class Drift(Fault):
    """A parameter of the rank becomes another number than it should be."""

    def inject(self, modules: Sequence[nn.Module]) -> None:
        _first_parameter(modules).data.add_(1.0)


def _first_parameter(modules: Sequence[nn.Module]) -> nn.Parameter:
    return next(parameter for module in modules for parameter in module.parameters())
