"""Checks of single arguments whose errors begin with ``name=value: `` as every error of pipezoo does."""

from __future__ import annotations


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
