"""``report.html`` while a run is going: where each rank is, the loss so far, throughput, and who holds up the others.

The page asks its own file for news every two seconds; there is no server. Whether a rank computes or waits is seen from
outside, a few times a second: a rank computes unless it stands at an action whose message nobody has sent yet.

    looks      rank 0  c w w c w w c w      3 of 8
               rank 1  c c c c c c c c      8 of 8: the others wait for it
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipezoo.errors import OutputError
from pipezoo.results.run_dir import REPORT, write_text
from pipezoo.results.units import time_text
from pipezoo.supervisor.stall_diagnosis import RankStatus, as_dict

EVERY = 2.0  # seconds between two pages; the first comes as late, so that a short run writes none
LOOKS = 40  # that say who computes and who waits
FEW_LOOKS = 12  # before which nobody is called slow
AHEAD = 0.25  # of the looks by which the slowest rank computes more often than the next one
HOLDS_UP = "holds up the others: it computes while they wait"
RECENT = 10  # steps whose median is the time of a step


class LivePage:
    """The page of a run that is going.

    Args:
        folder: of the run.
        title: of the page.
        steps: that the run will do.
        batch_size: rows of a step.
        clock: seconds of a clock that only rises.
    """

    def __init__(self, folder: Path, title: str, steps: int, batch_size: int, clock: Any = time.monotonic) -> None:
        self._folder, self._title, self._steps, self._batch_size = folder, title, steps, batch_size
        self._clock, self._written = clock, clock()
        self._losses: list[float] = []
        self._seconds: deque[float] = deque(maxlen=RECENT)
        self._looks: deque[list[bool]] = deque(maxlen=LOOKS)

    def step(self, loss: float, seconds: float) -> None:
        """A step has ended."""
        self._losses.append(loss)
        self._seconds.append(seconds)

    def look(self, statuses: Sequence[RankStatus]) -> None:
        """Note where every rank stands, and write the page when it is time. Where it cannot, there is none."""
        ranks = as_dict(statuses)
        self._looks.append([rank["waits_for"] is None and rank["state"] == "running" for rank in ranks])
        if self._clock() - self._written >= EVERY:
            self._written = self._clock()
            with suppress(OutputError):
                write_text(self._folder / REPORT, self._page(ranks))

    def slowest(self) -> int | None:
        """The rank that the others wait for: it computes in far more looks than any other. None where there is none."""
        shares = self._shares()
        if len(self._looks) < FEW_LOOKS or len(shares) < 2:
            return None
        first, second = sorted(shares, reverse=True)[:2]
        return shares.index(first) if first - second >= AHEAD else None

    def _shares(self) -> list[float]:
        return [sum(column) / len(self._looks) for column in zip(*self._looks, strict=True)] if self._looks else []

    def _page(self, ranks: Sequence[dict[str, Any]]) -> str:
        from pipezoo.report.chart import line_chart  # jinja: a run that is short needs no page while it goes
        from pipezoo.report.template import render

        done, slow = len(self._losses), self.slowest()
        seconds = sorted(self._seconds)[len(self._seconds) // 2] if self._seconds else None
        facts = [{"name": "step", "value": f"{done} of {self._steps}", "note": ""}]
        if self._losses:
            facts.append({"name": "loss", "value": f"{self._losses[-1]:.6g}", "note": f"first {self._losses[0]:.6g}"})
        if seconds:
            facts.append({"name": "a step takes", "value": time_text(seconds), "note": ""})
            facts.append({"name": "samples per second", "value": f"{self._batch_size / seconds:.4g}", "note": ""})
            left = time_text((self._steps - done) * seconds)
            facts.append({"name": "left, about", "value": left, "note": ""})
        rows = [rank | {"share": f"{100 * share:.0f} %"} for rank, share in zip(ranks, self._shares(), strict=True)]
        return render(
            "live.html",
            title=self._title,
            scripts=(),
            refresh=EVERY,
            facts=facts,
            slow="" if slow is None else f"{ranks[slow]['name']} {HOLDS_UP}",
            ranks=rows,
            losses=line_chart({"loss": list(enumerate(self._losses))}, "loss by step", from_zero=False)
            if self._losses
            else None,
            written=time.strftime("%H:%M:%S"),
        )
