from __future__ import annotations

from pathlib import Path

from pipezoo.report.cause_bars import cause_bars
from pipezoo.results.bubble import WORDS
from pipezoo.results.run import Run

PARTS = dict(zip(WORDS, (0.2, 0.1, 0.0, 0.05, 0.0, -0.05), strict=True))


def bubble(**more):
    by_rank = {name: [share, 2 * share] for name, share in PARTS.items()}
    return {"makespan": 0.3, "causes": PARTS | {"by_rank": by_rank}} | more


def test_each_rank_has_a_bar_and_each_timeline_a_column():
    found = cause_bars(Run(Path("."), {"bubble": {"measured": bubble(), "predicted": bubble(makespan=0.3)}}))

    assert found["sources"] == ["measured", "predicted"]
    assert found["rows"][0] == ("c0", "fill and drain", ["20.0 %", "20.0 %"])
    assert found["rows"][-1] == ("c5", "slowed actions", ["-5.0 %", "-5.0 %"])
    assert found["bars"].count('class="cause c0"') == 2
    assert 'x="64.00" y="0" width="96.00"' in found["bars"]  # 0.2 of 480
    assert 'class="cause c5"' not in found["bars"]  # below 0: no length


def test_a_run_of_before_has_no_bars():
    assert cause_bars(Run(Path("."), {"bubble": {"measured": {"makespan": 0.3}}})) is None


def test_of_very_many_ranks_some_have_a_bar():
    by_rank = {name: [0.01] * 100 for name in WORDS}
    found = cause_bars(Run(Path("."), {"bubble": {"measured": bubble(causes=PARTS | {"by_rank": by_rank})}}))

    assert found["bars"].count("<text") == 25
    assert "every 4th rank" in found["bars"]
