"""The bubble in words: what it is made of, as parts that add up as they are printed."""

from __future__ import annotations

from collections.abc import Mapping

WORDS = {
    "fill_and_drain": "fill and drain",
    "order": "order",
    "uneven_stages": "uneven stages",
    "messages": "messages",
    "dispatch": "dispatch",
    "slowed": "slowed actions",
}


def percent_parts(bubble: float, causes: Mapping[str, float]) -> tuple[float, dict[str, float]]:
    """The bubble and its parts in percent with one decimal. The printed parts add up to the printed bubble.

    Where rounding takes from or adds to the sum, the parts that were rounded most make up for it.
    """
    tenths = {name: 1000.0 * share for name, share in causes.items()}
    rounded = {name: round(value) for name, value in tenths.items()}
    total = round(1000.0 * bubble)
    missing = total - sum(rounded.values())
    step = 1 if missing > 0 else -1
    by_error = sorted(tenths, key=lambda name: step * (rounded[name] - tenths[name]))
    for turn in range(abs(missing)):
        rounded[by_error[turn % len(by_error)]] += step
    return total / 10, {name: value / 10 for name, value in rounded.items()}


def sentence(bubble: float, causes: Mapping[str, float], slowed: str = "") -> str:
    """``85.8 % = 44.1 fill and drain + 7.0 order + 34.7 slowed actions (6 ranks share 2 cores)``.

    Args:
        bubble: over the makespan, in [0, 1).
        causes: shares by name; parts that are 0 as printed are left out.
        slowed: why actions were slowed, where that is known.
    """
    whole, parts = percent_parts(bubble, {name: causes[name] for name in WORDS})
    words = WORDS | ({"slowed": f"{WORDS['slowed']} ({slowed})"} if slowed else {})
    said = [f"{value:+.1f} {words[name]}" for name, value in parts.items() if value]
    listed = " ".join(f"{text[0]} {text[1:]}" for text in said).removeprefix("+ ")
    return f"{whole:.1f} %" + (f" = {listed}" if listed else "")
