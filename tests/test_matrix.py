"""Every model of conf/, cut its own way, trains on every schedule of conf/ as on one device.

All of them on real processes, and by every splitter: ``python -m benchmarks.matrix``.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.matrix import CUTS, ROWS, run_cell, run_here, words_of
from benchmarks.matrix_page import SCHEDULES, Cell, count, is_verified, table
from pipezoo.experiment.registry import conf_dir
from tests.support.warm_up import warm_up

FILES = sorted((conf_dir() / "model").glob("*.yaml"))
MODELS = [path.stem for path in FILES if "Needs the extra" not in path.read_text()]  # tests/models has the others
ORDERS = sorted(path.stem for path in (conf_dir() / "schedule").glob("*.yaml") if path.stem != "csv")
SMALL = {"d_hid": 16, "width": 8, "context": 8, "depth": 2}


def small(model: str) -> list[str]:
    """The words that make a model small: those of SMALL that its YAML has."""
    text = (conf_dir() / "model" / f"{model}.yaml").read_text(encoding="utf-8")
    images = ["data.size=8"] if "data: images" in text else []
    return [f"model.{key}={value}" for key, value in SMALL.items() if re.search(rf"\n{key}: \d", text)] + images


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    warm_up()  # once, and not in each process


def train(folder: Path, *words: str) -> dict:
    """A run in this process, its ranks in others where they are to be."""
    return run_here(["steps=2", *words], folder / "run")


def command(folder: Path, *words: str) -> dict:
    """A run as a sweep has it: a process of its own, a page, files."""
    return run_cell(["steps=2", *words], folder)


PAIRS = [(model, order) for model in MODELS if model != "model_with_param_alias" for order in ORDERS]
# A second input is bound before any schedule sees it, so these two run torch's schedules alone; a U-Net takes long to
# trace, and tests/executors has skips on others.
SOME = {name: SCHEDULES for name in MODELS if "kwargs" in name} | {"unet": ("1f1b", "interleaved_zero_bubble", "zbv")}
PAIRS = [(model, order) for model, order in PAIRS if order in SOME.get(model, ORDERS)]


# Every order on real processes with one model, every model with several orders; the other pairs on virtual ranks.
MANY = [model for model in MODELS if model != "model_with_param_alias" and model not in SOME]
FEW = [*SOME]
REAL = {(MANY[number % len(MANY)], order) for number, order in enumerate(ORDERS)} | {
    (model, order) for model in FEW for order in ("1f1b", "zbv")
}


@pytest.mark.parametrize(("model", "schedule"), PAIRS)
def test_every_model_is_exact_on_every_schedule(tmp_path: Path, model: str, schedule: str) -> None:
    run, launch = (command, "processes") if (model, schedule) in REAL else (train, "virtual")
    words = (f"model={model}", *small(model), f"schedule={schedule}", f"launch={launch}")
    result = run(tmp_path, *words, *ranks(schedule, 2))
    assert result["verified"] == "exact", result


def test_every_model_and_every_schedule_meets_real_processes() -> None:
    assert set(PAIRS) >= REAL
    assert {order for _, order in REAL} == set(ORDERS)
    assert all(sum(model == real for real, _ in REAL) >= 2 for model in {model for model, _ in PAIRS})


@pytest.mark.parametrize("schedule", ORDERS)
def test_tied_stages_are_close_on_every_schedule_that_two_stages_admit(tmp_path: Path, schedule: str) -> None:
    result = train(tmp_path, "model=model_with_param_alias", "model.d_hid=16", f"schedule={schedule}", *two(schedule))
    if schedule in ("unbalanced", "v_shape"):
        assert result["exit_code"] == 2
        assert result["error"].endswith("the pipe_split() calls of ModelWithParamAlias make 2 stage(s); valid: 1..2")
    else:
        assert is_verified(result, tied=True), result


TRACED = [("annotated", schedule) for schedule in ("1f1b", "interleaved_1f1b", "zbv")]  # tracing takes most of the time


@pytest.mark.parametrize(("split", "schedule"), [*TRACED, *(("modules", schedule) for schedule in SCHEDULES)])
def test_a_tied_language_model_is_close_under_adam(tmp_path: Path, split: str, schedule: str) -> None:
    words = ("model=gpt", *small("gpt"), "model.tied=true", "stages=4", f"split={split}", f"schedule={schedule}")
    result = train(tmp_path, *words)
    assert is_verified(result, tied=True), result
    assert result["max_relative_difference"] > 0, "a sum in another order should differ in its last bits"


@pytest.mark.parametrize("schedule", ["1f1b", "interleaved_zero_bubble", "zbv", "zb_h1", "split_backward"])
def test_a_model_that_splits_its_own_backward_is_exact(tmp_path: Path, schedule: str) -> None:
    words = ("model=multi_mlp_with_dw", "model.d_hid=16", "weight_grad=module", f"schedule={schedule}")
    assert train(tmp_path, *words, *ranks(schedule, 2))["verified"] == "exact"


@pytest.mark.parametrize("split", ["marked", "modules"])
def test_a_splitter_that_does_not_fit_says_which_one_does(tmp_path: Path, split: str) -> None:
    model, fits = {"marked": ("multi_mlp", "split=annotated"), "modules": ("example_code", "split=marked")}[split]
    result = train(tmp_path, f"model={model}", "model.d_hid=16", "stages=2", f"split={split}")
    assert result["exit_code"] == 2
    assert fits in result["error"]


EXACT = {"status": "ok", "verified": "exact", "max_relative_difference": 0.0}
CLOSE = {"status": "ok", "verified": "close", "max_relative_difference": 2e-7}
REFUSED = {"status": "failed", "exit_code": 2, "error": "split=marked: no"}
STOPPED = {
    "status": "failed",
    "exit_code": 4,
    "error": "rank 1 (stage 2, step 1, at 2W0): RuntimeError: no; more in x.log",
}


def test_the_table_shows_verdicts_and_below_it_what_the_other_executor_did_and_why() -> None:
    cells = {
        ("modules", "multi_mlp", "zbv", "native"): Cell((), True, EXACT),
        ("modules", "multi_mlp", "zbv", "torch"): Cell((), True, EXACT),
        ("modules", "gpt (tied)", "zbv", "native"): Cell(("model.tied=true",), True, CLOSE),
        ("modules", "gpt (tied)", "zbv", "torch"): Cell(("model.tied=true",), True, STOPPED),
        ("modules", "example_code", "1f1b", "native"): Cell((), False, REFUSED),
    }
    assert table("modules", cells).splitlines() == [
        "## split=modules",
        "",
        "| | zbv |",
        "|---|---|",
        "| multi_mlp | exact |",
        "| gpt (tied) | close 2e-07 |",
        "",
        "* `executor=torch`, `gpt (tied)`, zbv: stopped. `rank 1 (...): RuntimeError: no`",
        "* `example_code`: refused. `split=marked: no`",
    ]
    assert count(cells) == (
        "`executor=native`: 2 cells: 1 exact, 1 close.\n"
        "`executor=torch`: 2 cells: 1 exact, 1 stopped.\n"
        "1 models do not fit a splitter."
    )
    assert all(cell.is_right for cell in cells.values() if cell.result != STOPPED)


def test_a_cell_in_one_process_ends_as_the_command_does(tmp_path: Path) -> None:
    words = words_of("dicts between stages", "modules", "zbv")
    assert run_here(words, tmp_path / "a")["verified"] == "exact"
    assert run_here(words_of("dicts between stages", "annotated", "zbv"), tmp_path / "b")["exit_code"] == 2


@pytest.mark.parametrize(
    ("applies", "result"),
    [
        (True, {"status": "failed", "verified": "failed", "exit_code": 3}),
        (True, {"status": "failed", "exit_code": 2, "error": "refused, though it applies"}),
        (True, {"status": "ok", "verified": "close", "max_relative_difference": 1e-7}),  # nothing is tied here
        (False, {"status": "failed", "exit_code": 4, "error": "rank 1 failed"}),
        (False, {"status": "ok", "verified": "exact", "max_relative_difference": 0.0}),  # then it does apply
    ],
)
def test_a_cell_that_is_not_as_it_should_be_is_wrong(applies: bool, result: dict) -> None:
    assert not Cell(("model=multi_mlp",), applies, result).is_right


def test_every_row_of_the_matrix_has_a_splitter_that_fits_it() -> None:
    assert {row for rows in CUTS.values() for row in rows} == set(ROWS)
    assert words_of("gpt", "modules", "zbv")[4:] == (
        "split=modules",
        "schedule=zbv",
        "executor=native",
        "steps=2",
        "launch=virtual",
    )


def ranks(schedule: str, count: int) -> list[str]:
    """``ranks=``, where the schedule's file does not say it."""
    return [] if (conf_dir() / "schedule" / f"{schedule}.csv").is_file() else [f"ranks={count}"]


def two(schedule: str) -> list[str]:
    """Two stages, where the schedule's file does not say how many."""
    return [] if (conf_dir() / "schedule" / f"{schedule}.csv").is_file() else ["stages=2"]
