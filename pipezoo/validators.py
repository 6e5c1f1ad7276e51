"""Checks of single arguments whose errors begin with ``name=value: `` as every error of pipezoo does."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from contextlib import suppress


def check_int(name: str, value: object, low: int, high: int | None = None) -> int:
    """Return `value` if it is an int in low..high (no upper end when `high` is None), else raise ValueError.

    A bool is no int here, and neither is a float that happens to be whole.
    """
    if isinstance(value, int) and not isinstance(value, bool) and low <= value and (high is None or value <= high):
        return value
    valid = f">= {low}" if high is None else f"in {low}..{high}"
    raise ValueError(f"{name}={value!r}: must be an int {valid}")


def check_equal(name: str, value: object, only: int, why: str) -> int:
    """Return `value` if it is the int `only`, else raise ValueError that says why nothing else will do."""
    if isinstance(value, int) and not isinstance(value, bool) and value == only:
        return value
    raise ValueError(f"{name}={value!r}: {why}; valid: {only}")


def check_number(name: str, value: object, infinite: bool = False) -> float:
    """``value`` as a float if it is a number that is at least 0; ValueError otherwise.

    Args:
        value: a number, or a text of one: YAML reads ``1e-3`` as text.
        infinite: whether ``inf`` will do.
    """
    number = math.nan
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        with suppress(ValueError):
            number = float(value)
    if math.isnan(number) or number < 0 or (math.isinf(number) and not infinite):
        raise ValueError(f"{name}={value!r}: must be a number >= 0")
    return number


def check_positive(key: str, value: object, valid: str) -> None:
    """Raises ValueError if ``value`` is no finite number that is ``valid``: ``> 0`` or ``>= 0``."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not (value > 0 or (value == 0 and valid == ">= 0")):  # type: ignore[operator]
        raise ValueError(f"{key}={value!r}: must be a number; valid: {valid}")


def unknown(what: str, word: str, choices: Iterable[str]) -> str:
    """``unknown key (did you mean splits?); valid: d_hid, splits``"""
    names = sorted(map(str, choices))
    folded = {name.lower(): name for name in names}
    close = difflib.get_close_matches(str(word).lower(), folded, n=1, cutoff=0.5)
    meant = f" (did you mean {folded[close[0]]}?)" if close else ""
    return f"unknown {what}{meant}; valid: {', '.join(names) if names else 'none'}"
