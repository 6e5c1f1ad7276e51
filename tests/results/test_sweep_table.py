from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from pipezoo.errors import ConfigError
from pipezoo.report import sweep_page
from pipezoo.results.sweep_table import collect, errors, swept_keys, to_csv, write_sweep
from tests.support.run_folders import run_folder

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202ered]"


def job(folder: Path, name: str, overrides: list[str], result: dict[str, Any] | str | None) -> None:
    (folder / name / ".hydra").mkdir(parents=True)
    (folder / name / ".hydra" / "overrides.yaml").write_text(json.dumps(overrides))
    if result is not None:
        text = result if isinstance(result, str) else json.dumps(result)
        (folder / name / "result.json").write_text(text)


def finished(step: float, verified: str = "exact") -> dict[str, Any]:
    return {
        "status": "ok",
        "verified": verified,
        "step_seconds": {"median": step, "min": step, "max": step},
        "samples_per_second": 32 / step,
        "bubble": {"measured": {"makespan": 0.4, "span": 0.3}, "predicted": {"makespan": 0.25, "span": 0.2}},
    }


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    job(tmp_path, "0", ["model=multi_mlp", "stages=2", "schedule=gpipe"], finished(0.0125))
    job(tmp_path, "1", ["model=multi_mlp", "stages=4", "schedule=gpipe"], '{"status": "o')
    job(tmp_path, "2", ["model=multi_mlp", "stages=2", "schedule=zbv"], None)
    job(tmp_path, "10", ["model=multi_mlp", "stages=4", "schedule=zbv"], {"status": "failed", "error": "rank 1 died"})
    (tmp_path / "multirun.yaml").write_text("")
    (tmp_path / "notes").mkdir()
    return tmp_path


def shown(table: Table) -> str:
    console = Console(width=120, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_every_job_is_a_row_in_the_sweeps_order_also_the_dead_ones(sweep: Path) -> None:
    assert [(row["job"], row["status"]) for row in collect(sweep)] == [
        ("0", "ok"),
        ("1", "torn"),
        ("2", "missing"),
        ("10", "failed"),
    ]


def test_only_the_keys_that_differ_are_columns(sweep: Path) -> None:
    assert swept_keys(collect(sweep)) == ["stages", "schedule"]


def test_a_job_whose_overrides_are_lost_adds_no_columns(sweep: Path) -> None:
    (sweep / "1" / ".hydra" / "overrides.yaml").unlink()
    rows = collect(sweep)
    assert swept_keys(rows) == ["stages", "schedule"]
    assert rows[1]["stages"] is None


def test_where_no_key_differs_all_are_columns(tmp_path: Path) -> None:
    job(tmp_path, "0", ["stages=2", "+seed=1"], finished(1.0))
    assert swept_keys(collect(tmp_path)) == ["stages", "seed"]


def test_a_finished_job_has_its_numbers_and_a_dead_one_has_none(sweep: Path) -> None:
    rows = collect(sweep)
    assert rows[0] == {
        "job": "0",
        "stages": "2",
        "schedule": "gpipe",
        "status": "ok",
        "verified": "exact",
        "step_seconds": 0.0125,
        "samples_per_second": 2560.0,
        "bubble_measured": 0.4,
        "bubble_predicted": 0.25,
        "unit": "s",
        "folder": "0",
        "error": None,
    }
    assert rows[2]["step_seconds"] is None
    assert errors(rows)[-1] == "job 10: rank 1 died"


def test_jobs_that_ended_alike_share_a_line() -> None:
    rows = [{"job": str(i), "error": "no GPU" if i % 2 else None} for i in range(6)] + [{"job": "6", "error": "other"}]
    assert errors(rows) == ["jobs 1, 3, 5: no GPU", "job 6: other"]
    many = [{"job": str(i), "error": "no GPU"} for i in range(40)]
    assert errors(many) == ["jobs 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ..., 39: no GPU"]


def test_the_csv_reads_back(sweep: Path) -> None:
    write_sweep(sweep)
    with (sweep / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["ok", "torn", "missing", "failed"]
    assert float(rows[0]["step_seconds"]) == 0.0125
    assert rows[2]["step_seconds"] == ""


def test_the_table_has_units_and_a_line_per_job(sweep: Path) -> None:
    lines = [line.split() for line in shown(write_sweep(sweep)[1]).splitlines()]
    assert lines[0] == ["job", "stages", "schedule", "status", "verified", "step", "samples/s", "bubble", "predicted"]
    assert lines[1] == ["0", "2", "gpipe", "ok", "exact", "12.5", "ms", "2560", "40.0", "%", "25.0", "%"]
    assert lines[3] == ["2", "2", "zbv", "missing"]


def test_nothing_in_a_job_can_act_on_the_terminal(tmp_path: Path) -> None:
    job(tmp_path, "0", [f"model.name={HOSTILE}", f"{HOSTILE}=1"], finished(1.0) | {"error": HOSTILE, "status": HOSTILE})
    job(tmp_path, "1", ["model.name=[red]b[/red]"], None)
    rows, table = write_sweep(tmp_path)
    told = shown(table) + "".join(errors(rows)) + to_csv(rows)
    assert not {"\x1b", "\x07", "\u202e"} & set(told)
    assert "\\x1b]0;owned\\x07" in told
    assert "[red]b[/red]" in told  # shown as written, not taken as markup


@pytest.mark.parametrize("text", ["", "{", "stages: 2", "- 3\n- [a]\n", "!!python/object/apply:os.getcwd []", "\x00"])
def test_overrides_that_cannot_be_read_count_as_none(tmp_path: Path, text: str) -> None:
    job(tmp_path, "0", [], finished(1.0))
    (tmp_path / "0" / ".hydra" / "overrides.yaml").write_text(text)
    assert swept_keys(collect(tmp_path)) == []


@pytest.mark.parametrize("strange", ["NaN", None, [], {"median": "x"}, True, 10**400])
def test_numbers_that_are_none_are_left_out(tmp_path: Path, strange: object) -> None:
    strange_result = {
        "status": "ok",
        "step_seconds": {"median": strange},
        "samples_per_second": strange,
        "bubble": strange,
    }
    job(tmp_path, "0", ["a=1"], strange_result)
    row = collect(tmp_path)[0]
    assert (row["step_seconds"], row["samples_per_second"], row["bubble_measured"]) == (None, None, None)
    shown(write_sweep(tmp_path)[1])


def test_a_folder_without_jobs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^folder=.*: holds no sweep"):
        collect(tmp_path)
    with pytest.raises(ConfigError, match=r"^folder=.*: No such file or directory"):
        collect(tmp_path / "missing")


def test_every_job_with_a_timeline_is_pictured_however_long_it_is(tmp_path: Path) -> None:
    run_folder(tmp_path / "0", num_ranks=2)
    run_folder(tmp_path / "1", num_ranks=16, num_microbatches=700)  # 22,400 spans in each of its timelines
    assert sweep_page.sweep_page(tmp_path).count('aria-label="timeline"') == 2
