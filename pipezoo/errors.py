"""What can go wrong in a run, and the exit code that each of it ends with.

Everything a person is meant to read is one of these. A function that refuses an argument raises
:class:`ArgumentError` under the argument's own name; ``experiment/component.py`` turns it into a :class:`ConfigError`
under the key that the user typed. Anything else is a defect of ours.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from enum import Enum
from pathlib import Path, PurePath
from typing import Any


class Missing(Enum):
    """The value of an argument that has none."""

    VALUE = "missing"


MISSING = Missing.VALUE
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)  # of the system, where there is no room to write


class ArgumentError(ValueError):
    """One argument has a value that will not do; ``str()`` is ``name=value: why; valid: values``.

    Args:
        name: of the argument; ``stages[2].F`` leads to an entry of it.
        value: what it was; ``MISSING`` where it has none, and then the text is ``name: why``.
        why: what is wrong with it.
        valid: what would do: a text, the values themselves, or None where ``why`` says it.
    """

    def __init__(self, name: str, value: object, why: str, valid: str | Sequence[object] | None = None) -> None:
        super().__init__(name, value, why, valid)
        self.name, self.value, self.why, self.valid = name, value, why, valid

    @property
    def argument(self) -> str:
        """The argument itself: ``stages`` of ``stages[2].F``."""
        return re.split(r"[.\[]", self.name, maxsplit=1)[0]

    @property
    def valid_text(self) -> str:
        """``; valid: 2, 4``, or nothing."""
        if self.valid is None:
            return ""
        return f"; valid: {self.valid if isinstance(self.valid, str) else ', '.join(map(str, self.valid))}"

    def inside(self, outer: str) -> ArgumentError:
        """The same of an entry of ``outer``: ``latency`` of ``p2p`` is ``p2p.latency``."""
        return ArgumentError(f"{outer}.{self.name}", self.value, self.why, self.valid)

    def at(self, key: str) -> str:
        """The error as one line about ``key``, the argument's name on the command line, its value as it is typed."""
        return self._line(key + self.name[len(self.argument) :], show(self.value))

    def __str__(self) -> str:
        plain = isinstance(self.value, (str, PurePath))
        return self._line(self.name, show(self.value) if plain else repr(self.value))

    def _line(self, name: str, value: str) -> str:
        what = name if self.value is MISSING else f"{name}={value}"
        return " ".join(f"{what}: {self.why}{self.valid_text}".split())


def show(value: Any) -> str:
    """A value as it is typed on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value if value and not _reads_as_other(value) else repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(show, value))}]"
    return str(value)


def no_room(error: BaseException) -> str | None:
    """Why nothing can be written, where that is the error, also in the words of a library; else None."""
    if isinstance(error, OSError):
        return error.strerror or str(error) if error.errno in FULL else None
    return next((os.strerror(number) for number in FULL if os.strerror(number) in str(error)), None)


def first_line(error: BaseException) -> str:
    """The type of an error and the first line of its text."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0].strip()}" if text else type(error).__name__


def _reads_as_other(text: str) -> bool:
    """True for text that would be a number or a word of YAML if it stood without quotes."""
    return bool(re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?|true|false|null|\s.*|.*\s", text, re.IGNORECASE))


class PipezooError(Exception):
    """A failure that is explained to the user in a few lines, without a traceback.

    ``folder`` is the run's, where there is one and the error left a function of ``import pipezoo``.
    """

    exit_code = 1
    folder: Path | None = None


class ConfigError(PipezooError, ValueError):
    """The configuration cannot be run; no process was started.

    ``argument`` is the argument that was refused, as the function that refused it calls it, where there is one;
    ``why`` the reason without the key that the message begins with.
    """

    exit_code = 2

    def __init__(self, message: str, argument: ArgumentError | None = None, why: str = "") -> None:
        super().__init__(message)
        self.argument = argument
        self.why = why or message


class ScheduleError(ConfigError):
    """A table of actions that is not a schedule: incomplete, doubled, out of order or deadlocking.

    ``index`` is the place in the table of the action at fault, where there is one.
    """

    def __init__(self, message: str, index: int | None = None, argument: ArgumentError | None = None) -> None:
        super().__init__(message, argument)
        self.index = index


class VerificationError(PipezooError):
    """The pipeline trained, but not to the numbers of one device."""

    exit_code = 3


class RankError(PipezooError):
    """A rank raised, was killed, or left before its work was done."""

    exit_code = 4


class NonFiniteError(PipezooError):
    """A loss, a gradient or a parameter became NaN or infinite.

    Of several ranks that find one in the same step, the one with the smallest ``precedence`` is nearest to the cause.
    """

    exit_code = 5

    def __init__(self, message: str, precedence: int = 0) -> None:
        super().__init__(message)
        self.precedence = precedence


class OutputError(PipezooError):
    """The run's folder cannot be written, or already holds a run."""

    exit_code = 6


class NoProgressError(PipezooError):
    """No rank moved for longer than the deadline."""

    exit_code = 124
