"""What the bubble is made of, a bar per rank: inline SVG, with the same numbers as a table beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from pipezoo.results.bubble import WORDS, percent_parts
from pipezoo.results.run import Run
from pipezoo.results.sweep_table import inner, number

BAR, GAP, LEFT, WIDTH = 16, 5, 64, 480  # pixels
MOST_BARS = 32  # ranks that are drawn; of more, evenly chosen ones


def cause_bars(run: Run) -> dict[str, Any] | None:
    """For each timeline its table of parts, and bars of the measured one where there is one; None where none is known.

    Returns:
        ``bars``: SVG. ``rows``: ``(css class, cause, its percent in each timeline)``. ``sources``: their names.
    """
    found = {source: inner(run.result, "bubble", source) for source in ("measured", "predicted")}
    known = {source: bubble for source, bubble in found.items() if _parts(bubble) is not None}
    if not known:
        return None
    drawn = next(iter(known))
    wholes = [number(inner(bubble, "makespan")) or 0.0 for bubble in known.values()]
    columns = [
        percent_parts(whole, _parts(bubble) or {})[1] for whole, bubble in zip(wholes, known.values(), strict=True)
    ]
    rows = [(f"c{i}", WORDS[name], [f"{column[name]:.1f} %" for column in columns]) for i, name in enumerate(WORDS)]
    bars = _svg(inner(known[drawn], "causes", "by_rank"))
    return {"bars": bars, "drawn": drawn, "rows": rows, "sources": list(known)}


def _parts(bubble: Any) -> dict[str, float] | None:
    values = {name: number(inner(bubble, "causes", name)) for name in WORDS}
    parts = {name: value for name, value in values.items() if value is not None}
    return parts if len(parts) == len(WORDS) else None


def _svg(by_rank: Any) -> Markup:
    columns = {name: inner(by_rank, name) for name in WORDS}
    if not all(isinstance(column, list) for column in columns.values()):
        return Markup("")
    num_ranks = min(map(len, columns.values()))
    every = max(1, -(-num_ranks // MOST_BARS))
    ranks = range(0, num_ranks, every)
    bars = [_bar(rank, y * (BAR + GAP), columns) for y, rank in enumerate(ranks)]
    height = len(ranks) * (BAR + GAP)
    label = (
        f"idle share of {num_ranks} ranks, by cause" if every == 1 else f"idle share of every {every}th rank, by cause"
    )
    picture = f'<svg class="causes" viewBox="0 0 {LEFT + WIDTH} {height}" role="img" aria-label="{escape(label)}">'
    return Markup(picture + "".join(bars) + "</svg>")


def _bar(rank: int, y: int, columns: Mapping[str, Sequence[Any]]) -> str:
    """Parts from the left, at their share of the rank's time; one below 0 has no length."""
    x, parts = float(LEFT), [f'<text class="right" x="{LEFT - 8}" y="{y + BAR - 4}">rank {rank}</text>']
    parts.append(f'<rect class="busy" x="{LEFT}" y="{y}" width="{WIDTH}" height="{BAR}"/>')
    for i, name in enumerate(WORDS):
        share = max(0.0, number(columns[name][rank]) or 0.0)
        wide = min(share * WIDTH, LEFT + WIDTH - x)
        if wide > 0:
            title = f"<title>rank {rank}: {WORDS[name]} {100 * share:.1f} %</title>"
            parts.append(
                f'<rect class="cause c{i}" x="{x:.2f}" y="{y}" width="{wide:.2f}" height="{BAR}">{title}</rect>'
            )
            x += wide
    return "".join(parts)
