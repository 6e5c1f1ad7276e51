from __future__ import annotations

from pathlib import Path

import pytest

from pipezoo.report.choices import pareto, plan_table, what_if
from pipezoo.report.html import run_page
from pipezoo.report.sweep_page import sweep_page
from pipezoo.results.run import Run, read_run
from pipezoo.results.schedule_file import write_schedule
from tests.support.run_folders import run_folder
from tests.support.timelines import one_f_one_b

PLANS = [
    {"schedule": "planned", "made": "planned", "step_seconds": 0.010, "peak_memory": 4e6},
    {"schedule": "zbv", "made": "fixed", "step_seconds": 0.012, "peak_memory": 2e6},
    {"schedule": "gpipe", "made": "fixed", "step_seconds": 0.015, "peak_memory": 8e6},
]
MORE = {"stages_per_rank": 1, "num_microbatches": 8, "bubble": {"makespan": 0.1, "span": 0.05}, "gap": 0.02}


def planned(**result) -> Run:
    return Run(Path("outputs/a"), {"task": "plan", "status": "ok", "plans": [plan | MORE for plan in PLANS]} | result)


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([(1, 9), (2, 5), (3, 6), (4, 1)], {0, 1, 3}),
        ([(1, 1), (1, 1)], {0}),
        ([(1, 2), (1, 1)], {1}),
        ([], set()),
    ],
    ids=["each has less of one", "equal ones once", "as fast with less memory", "none"],
)
def test_the_front_has_what_nothing_beats(points, front):
    assert pareto(points) == front


def test_the_page_of_a_plan_is_about_its_candidates():
    found = plan_table(planned())

    assert [row[1]["text"] for row in found["rows"]] == ["planned", "zbv", "gpipe"]
    assert [row[0]["text"] for row in found["rows"]] == ["1 *", "2 *", "3"]
    assert [row[5]["text"] for row in found["rows"]] == ["10 ms", "12 ms", "15 ms"]
    assert found["faster"] == "1.200 times as fast as zbv, the best fixed schedule."
    assert found["run_it"] == "python -m pipezoo --config-dir outputs/a/conf +experiment=planned"
    assert found["chart"].count("<circle") == 3
    page = run_page(planned())
    assert "<b>planned</b> nothing was trained" in page
    assert "not verified" not in page


def test_other_runs_have_no_candidates():
    assert plan_table(planned(task="train")) is None


def test_the_page_of_a_measured_run_says_what_other_orders_would_take(tmp_path):
    folder = run_folder(tmp_path / "a", num_ranks=2, num_microbatches=4)
    write_schedule(folder, one_f_one_b(2, 4))
    cost = {"stages": [{"F": 1e-3, "B": 2e-3, "activation_bytes": 1024.0}] * 2}
    measured = read_run(folder)
    measured.result["step_seconds"] = {"median": 15e-3, "min": 15e-3}
    measured.result["prediction"] |= {"step_seconds": 15e-3, "cost": cost}
    rows = {row["name"]: row for row in what_if(measured)}

    assert rows["gpipe"]["against"] == "+0 %"  # 1F1B is as long, and holds less
    assert rows["gpipe"]["memory"] == "4.1 kB"
    assert rows["zb_h2"]["assumed"] == "I and W take half of B each"
    assert rows["zb_h2"]["command"].endswith("schedule=zb_h2")
    assert "zb_h2" in run_page(measured)


def test_a_long_order_is_not_explained_while_its_page_is_written(tmp_path):
    folder = run_folder(tmp_path / "a", num_ranks=8, num_microbatches=256)
    assert what_if(read_run(folder)) == []


def sweep(tmp_path: Path, **seconds: float) -> str:
    for i, (schedule, median) in enumerate(seconds.items()):
        steps = {"median": median, "min": 0.9 * median, "max": 2 * median}
        run_folder(tmp_path / str(i), schedule=schedule, step_seconds=steps, samples_per_second=32 / median)
    return sweep_page(tmp_path)


def test_the_page_of_a_sweep_marks_the_best_job_and_shows_how_steps_spread(tmp_path):
    page = sweep(tmp_path, gpipe=0.02, zb=0.01)

    assert page.count('<tr class="best">') == 1
    assert "Marked: job 1, the one with the most samples a second." in page
    assert "9 ms to 20 ms" in page


def test_values_far_apart_are_drawn_on_a_logarithmic_axis(tmp_path):
    assert "logarithmic" in sweep(tmp_path, gpipe=0.3, zb=0.01)


def test_values_near_each_other_are_not(tmp_path):
    assert "logarithmic" not in sweep(tmp_path, gpipe=0.02, zb=0.01)


def test_one_long_timeline_does_not_flatten_the_others(tmp_path):
    for i, microbatches in enumerate((4, 4, 64)):
        run_folder(tmp_path / str(i), num_microbatches=microbatches)

    assert "1 timeline of them goes on beyond it." in sweep_page(tmp_path)
