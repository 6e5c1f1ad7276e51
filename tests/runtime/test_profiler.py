"""torch's profiler around chosen steps: a trace for each process, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from pipezoo.errors import ArgumentError
from pipezoo.experiment.profile import ProfileOptions
from pipezoo.launch import Processes
from tests.support.experiments import WIDTH, ending, experiment, run


class Pair(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH))


def asked(profile: ProfileOptions | None, **changes: Any) -> Any:
    return experiment(Pair, **{"profile": profile, "steps": 4, "batch_size": 8, **changes})


def names(trace: Path) -> set[str]:
    return {event.get("name", "") for event in json.loads(trace.read_text())["traceEvents"]}


@pytest.mark.parametrize("launch", [{}, {"launch": Processes(), "launch_name": "processes"}], ids=["virtual", "two"])
def test_every_process_leaves_a_trace_of_the_chosen_steps(launch, tmp_path):
    result = run(asked(ProfileOptions(steps=[1, 2]), **launch), tmp_path / "with")
    traces = sorted((tmp_path / "with" / "profile").iterdir())
    assert [trace.name for trace in traces] == ["rank0.json", "rank1.json"][: len(traces)]
    assert len(traces) == (2 if launch else 1)
    for trace in traces:
        assert {"step 1", "step 2", "aten::addmm"} <= names(trace)
        assert not {"step 0", "step 3"} & names(trace)
    assert result["verified"] == "exact"
    assert result["losses"] == run(asked(None, **launch), tmp_path / "without")["losses"]


def test_nothing_chosen_is_the_last_step_before_those_that_are_recorded():
    assert ProfileOptions().chosen(range(10), 1) == (8,)
    assert ProfileOptions().chosen(range(4, 5), 1) == (4,)


@pytest.mark.parametrize("steps", [[], [-1]])
def test_what_is_no_step_is_refused(steps):
    with pytest.raises(ArgumentError, match="steps"):
        ProfileOptions(steps=steps)


def test_a_step_that_the_run_has_not_is_refused(tmp_path):
    code, line = ending(asked(ProfileOptions(steps=[9])), tmp_path)
    assert (code, line) == (2, "profile.steps=[9]: the run has no step 9; valid: 0..3")
