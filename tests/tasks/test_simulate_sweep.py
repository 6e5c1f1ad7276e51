"""The whole zoo in one table: ``task=simulate -m 'schedule=glob(*)'``."""

from __future__ import annotations

import csv

from tests.support import zoo


def test_every_schedule_is_a_row_in_units_and_those_that_refuse_say_why(cli, tmp_path):
    ended = cli("task=simulate", "-m", "schedule=glob(*)", "ranks=4", "microbatches=6,8", "hydra.sweep.dir=all")

    with (tmp_path / "all" / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(zoo.NAMES)
    good = {(row["schedule"], row["microbatches"]): row for row in rows if row["status"] == "ok"}
    assert {name for name, _ in good} == set(zoo.GENERATED)
    assert float(good["1f1b", "8"]["step_seconds"]) == 3 * (8 + 3)
    assert good["1f1b", "8"]["unit"] == "unit"
    assert "33 units" in ended.out

    assert ended.code == 0, "what a glob finds and does not fit is no failure"
    assert "schedule.file: is missing; give it a value" in ended.out
    assert "microbatches=6: groups of 4 leave 2, fewer than the 4 ranks; valid: 4, 8" in ended.out
    assert "conf/schedule/v_shape.csv has ranks=2; valid: 2" in ended.out
    assert (tmp_path / "all" / "report.html").stat().st_size > 10_000
    assert not list((tmp_path / "all").rglob("metrics.jsonl"))
