"""Seconds and bytes as people read them: ``12.3 ms``, ``1.5 MiB``."""

from __future__ import annotations


def time_text(value: float, unit: str = "s") -> str:
    """A time in the unit that suits it: ``12.3 ms``, or ``54 units`` where ``unit`` is not seconds (``"s"``)."""
    scale, name = scale_of(value, unit)
    return f"{value / scale:.4g} {name}"


def bytes_text(value: float) -> str:
    """A size in the unit that suits it: ``1.5 MiB``."""
    for name in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.4g} {name}"
        value /= 1024
    return f"{value:.4g} TiB"


def scale_of(value: float, unit: str) -> tuple[float, str]:
    """The length of the unit that suits a time, and its name."""
    if unit != "s":
        return 1.0, "units"
    nearly = value * 1.00005  # 0.99999 ms reads 1 ms, not 1000 us
    return next(((scale, name) for scale, name in ((1.0, "s"), (1e-3, "ms")) if nearly >= scale), (1e-6, "us"))


def count(number: int, noun: str) -> str:
    """``1 rank``, ``2 ranks``, ``3 processes``"""
    plural = noun + ("es" if noun.endswith(("ss", "ch")) else "s")
    return f"{number} {noun if number == 1 else plural}"


def amount(value: float, unit: str = "B") -> str:
    """Bytes as people say them; other units as plain numbers."""
    if unit != "B":
        return f"{value:.4g}"
    for name, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {name}"
    return f"{value:.0f} B"
