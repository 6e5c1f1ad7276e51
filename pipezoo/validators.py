"""Checks of single arguments; each raises :class:`ArgumentError`, whose text is ``name=value: why; valid: values``."""

from __future__ import annotations

import difflib
import errno
import math
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pipezoo.errors import ArgumentError

INT64 = 2**63 - 1
LARGEST = 1e100  # of a finite number: sums and products of a few of them are finite, too


def check_int(
    name: str, value: object, low: int, high: int | None = None, listed: bool = False, most: int = INT64
) -> int:
    """Return ``value`` if it is an int in low..high, or in low..most where ``high`` is None, else raise ArgumentError.

    A bool is no int here, and neither is a float that happens to be whole.

    Args:
        listed: whether the range stands after ``valid:``, as it does for the keys of the command line.
        most: an upper end that nobody needs to hear of before passing it.
    """
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= (most if high is None else high):
        return value
    if isinstance(value, int) and value > most and high is None:
        raise ArgumentError(name, value, "is too large", f"<= {most}")
    raise _out_of_range(name, value, "an int", f">= {low}" if high is None else f"in {low}..{high}", listed)


def regular_file(path: Path) -> Path:
    """Return ``path``, which may be missing. Reading from a FIFO or a device could last for ever.

    Raises:
        OSError: there is something else than a file or a folder.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return path


def check_equal(name: str, value: object, only: int, why: str) -> int:
    """Return ``value`` if it is the int ``only``, else raise ArgumentError that says why nothing else will do."""
    if isinstance(value, int) and not isinstance(value, bool) and value == only:
        return value
    raise ArgumentError(name, value, why, (only,))


def check_number(
    name: str, value: object, *, above: bool = False, infinite: bool = False, listed: bool = False
) -> float:
    """Return ``value`` as a float if it is a number that is at least 0, else raise ArgumentError.

    Args:
        value: a number, or a text of one: YAML reads ``1e-3`` as text.
        above: whether 0 will not do.
        infinite: whether ``inf`` will do.
        listed: as of :func:`check_int`.
    """
    number = math.nan
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            number = float(value)
    if math.isnan(number) or number < 0 or (above and number == 0) or (math.isinf(number) and not infinite):
        raise _out_of_range(name, value, "a number", "> 0" if above else ">= 0", listed)
    if LARGEST < number < math.inf:
        raise ArgumentError(name, value, "is too large", f"<= {LARGEST:g}")
    if 0 < number < 1 / LARGEST:
        raise ArgumentError(name, value, "is too small", f"0, >= {1 / LARGEST:g}")
    return number


def check_word(name: str, value: object, choices: Iterable[str], what: str = "word") -> str:
    """Return ``value`` if it is one of ``choices``, else raise ArgumentError that says which one was meant."""
    names = list(choices)
    if isinstance(value, str) and value in names:
        return value
    raise unknown_word(name, value, what, names)


def check_bool(name: str, value: object) -> bool:
    """Return ``value`` if it is True or False, else raise ArgumentError."""
    if isinstance(value, bool):
        return value
    raise ArgumentError(name, value, "must be true or false", "true, false")


def unknown_word(name: str, value: object, what: str, choices: Iterable[str], word: str | None = None) -> ArgumentError:
    """The error of a value that is none of ``choices``; ``word`` is what was looked for, if not the value."""
    names = sorted(map(str, choices))
    return ArgumentError(name, value, _unknown(what, word or value, names), names or "none")


def unknown(what: str, word: str, choices: Iterable[str]) -> str:
    """``unknown key (did you mean splits?); valid: d_hid, splits``"""
    names = sorted(map(str, choices))
    return f"{_unknown(what, word, names)}; valid: {', '.join(names) if names else 'none'}"


def _out_of_range(name: str, value: object, what: str, valid: str, listed: bool) -> ArgumentError:
    return ArgumentError(
        name, value, f"must be {what}" if listed else f"must be {what} {valid}", valid if listed else None
    )


def _unknown(what: str, word: object, names: list[str]) -> str:
    folded = {name.lower(): name for name in names}
    close = difflib.get_close_matches(str(word).lower(), folded, n=1, cutoff=0.5)
    return f"unknown {what}{f' (did you mean {folded[close[0]]}?)' if close else ''}"
