"""How a run ends: a code, a line, a number for the sweeper."""

# ruff: noqa: E501  (a message stands on one line)
from __future__ import annotations

import pytest

from pipezoo.cli.outcome import ending, objective
from pipezoo.errors import ConfigError, OutputError


@pytest.mark.parametrize(
    ("result", "path", "value"),
    [
        ({"step_seconds": {"median": 0.5, "min": 0.1}}, "step_seconds", 0.5),
        ({"step_seconds": {"median": 0.5, "min": 0.1}}, "step_seconds.min", 0.1),
        ({"bubble": {"measured": {"makespan": 0.25}}}, "bubble.measured.makespan", 0.25),
        ({"losses": [3.0, 2.0, 1.0]}, "losses.-1", 1.0),
        ({"losses": [3.0, 2.0, 1.0]}, "losses.1", 2.0),
    ],
)
def test_the_objective_is_a_number_of_the_result(result, path, value):
    assert objective(result, path) == value


@pytest.mark.parametrize("result", [{}, {"step_seconds": 1.0, "exit_code": 3}, {"step_seconds": "fast"}])
def test_a_job_that_failed_has_no_objective(result):
    assert str(objective(result, "step_seconds")) == "nan"


@pytest.mark.parametrize("path", ["losses", "losses.3", "losses.-4", "losses.x", "losses.1.2", "verified", "dirty"])
def test_a_way_that_leads_to_no_number_gives_none(path):
    assert str(objective({"losses": [3.0, 2.0, 1.0], "verified": "exact", "dirty": True}, path)) == "nan"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("steps=0: must be an int"), 2, "error: steps=0: must be an int"),
        (OutputError("x: cannot be\x1b[31m written"), 6, "error: x: cannot be [31m written"),
        (SystemExit(0), 2, "error: something in this run called sys.exit(0) before its end"),
        (OSError(28, "No space left on device", "metrics.jsonl"), 6, "error: metrics.jsonl: cannot be written: No space left on device"),
        (ZeroDivisionError("division by zero"), 1, "error: ZeroDivisionError: division by zero"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)  # fmt: skip
def test_every_error_has_a_code_and_a_line(error, code, line):
    assert ending(error) == (code, line)
