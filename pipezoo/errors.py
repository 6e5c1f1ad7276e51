"""What can go wrong in a run, and the exit code that each of it ends with.

Everything a person is meant to read is one of these (or a plain ``ValueError`` about one argument, which
``config.py`` turns into a :class:`ConfigError` in the user's spelling). Anything else is a defect of ours.
"""

from __future__ import annotations


class PipezooError(Exception):
    """A failure that is explained to the user in a few lines, without a traceback."""

    exit_code = 1


class ConfigError(PipezooError, ValueError):
    """The configuration cannot be run; no process was started."""

    exit_code = 2


class ScheduleError(ConfigError):
    """A table of actions that is not a schedule: incomplete, doubled, out of order or deadlocking.

    ``index`` is the place in the table of the action at fault, where there is one.
    """

    def __init__(self, message: str, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class VerificationError(PipezooError):
    """The pipeline trained, but not to the numbers of one device."""

    exit_code = 3


class RankError(PipezooError):
    """A rank raised, was killed, or left before its work was done."""

    exit_code = 4


class NonFiniteError(PipezooError):
    """A loss, a gradient or a parameter became NaN or infinite."""

    exit_code = 5


class OutputError(PipezooError):
    """The run's folder cannot be written, or already holds a run."""

    exit_code = 6


class NoProgressError(PipezooError):
    """No rank moved for longer than the deadline."""

    exit_code = 124


class Interrupted(PipezooError):
    """A signal ended the run; what was written until then is kept."""

    exit_code = 130
