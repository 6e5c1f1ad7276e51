"""Runs on data sets of one's own: the same batches on every rank and in the reference, and whose fault it was."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from torch import nn

from pipezoo.data import _rows
from pipezoo.experiment.component import Component
from tests.data import sources
from tests.support.experiments import TRUST, WIDTH, ending, experiment, run

V_SHAPE = "pipezoo.schedules.zbv.zbv"
ORDER = "pipezoo.schedules.from_csv.from_csv"


class Chain(nn.Sequential):
    def __init__(self, depth: int = 4) -> None:
        super().__init__(*(nn.Linear(WIDTH, WIDTH) for _ in range(depth)))


def on(source, words=None, **changes):
    """An experiment whose data are ``source``, a function of ``sources`` and its arguments."""
    name, arguments = source
    part = {"_target_": f"tests.data.sources.{name}", **arguments}
    data = ("pipezoo.data.dataset.batches", {"source": part, **(words or {})})
    return experiment(Chain, **{"data": data, "batch_size": 8, "num_microbatches": 4, "steps": 5, **changes})


SOURCES = [("Rows", {"noise": True}), ("Stream", {}), ("generated", {}), ("loader", {"noise": True})]


@pytest.mark.parametrize("schedule", ["1f1b", "zbv"])
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source[0])
def test_virtual_ranks_and_the_reference_have_the_same_batches(source, schedule, tmp_path):
    words = {"schedule": V_SHAPE, "num_stages": 4} if schedule == "zbv" else {}
    assert ending(on(source, **words), tmp_path) == (0, "exact")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (("Rows", {"noise": True}), {"workers": 2}),
        (("Stream", {}), {}),
        (("loader", {"noise": True, "workers": 1}), {}),
    ],
    ids=["workers", "stream", "loader"],
)
def test_two_processes_and_the_reference_have_the_same_batches(source, words, tmp_path):
    from pipezoo.launch import Processes

    assert ending(on(source, words, launch=Processes(), launch_name="processes"), tmp_path) == (0, "exact")


def test_an_order_that_hangs_on_who_asks_is_caught(tmp_path, monkeypatch):
    monkeypatch.setattr(_rows.Rows, "indices", lambda self, step: [os.getpid() % 48] * 8)
    code, line = ending(on(("Rows", {}), steps=2), tmp_path)
    assert (code, line[:27]) == (3, "the pipeline does not compu")


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source[0])
def test_a_resumed_run_goes_on_where_the_data_were(source, tmp_path):
    from pipezoo.experiment.experiment import CheckpointOptions

    whole = run(on(source), tmp_path / "whole")
    run(on(source, steps=2, checkpoint=CheckpointOptions(every=2)), tmp_path / "part")
    rest = run(on(source, resume=str(tmp_path / "part")), tmp_path / "rest")
    assert rest["verified"] == "exact"
    assert rest["losses"] == whole["losses"][2:]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("source", "why"),
    [
        (("Rows", {"bad": 20}), "DataError: data: the batch of step 2, row 20: KeyError: 'no such file'"),
        (("Rows", {"odd": 20}), "DataError: data: the batch of step 2: its samples do not make one batch"),
        (("Stream", {"rows": 20}), "DataError: data: the batch of step 2: the data end after 2 batches of 8 rows"),
    ],
    ids=["fails", "shape", "ends"],
)
def test_what_is_seen_later_ends_with_4_and_the_culprit(source, why, workers, tmp_path):
    code, line = ending(on(source, {"shuffle": False, "workers": workers}), tmp_path)
    assert code == 4
    assert why in line


def test_what_can_be_seen_before_is_refused_before(tmp_path):
    code, line = ending(on(("Rows", {}), {"repeat": False}, steps=7), tmp_path)
    assert (code, line) == (2, "steps=7: data=batches ends after 6 batches; valid: steps<=6, or data.repeat=true")
    code, line = ending(on(("Rows", {"bad": 3}), {"shuffle": False}), tmp_path)
    assert (code, line[:34]) == (2, "data=batches: KeyError: 'no such f")


def test_a_data_set_may_stand_where_a_source_does(tmp_path):
    assert ending(experiment(Chain, data=(sources.Rows, {"rows": 20}), batch_size=8), tmp_path) == (0, "exact")


def test_a_loader_of_torch_may_be_named(tmp_path):
    inner = {"_target_": "tests.data.sources.Rows"}
    part = {"_target_": "torch.utils.data.DataLoader", "dataset": inner, "batch_size": 8, "drop_last": True}
    asked = on(("Rows", {}))
    data = Component(
        "data", "dataset", "pipezoo.data.dataset.batches", {"source": part}, given=asked.data.given, trust=TRUST
    )
    assert ending(replace(asked, data=data), tmp_path) == (0, "exact")
    refused = replace(data, arguments={"source": {"_target_": "torch.utils.data.random_split"}})
    code, line = ending(replace(asked, data=refused), tmp_path)
    assert (code, "is not allowed there" in line) == (2, True)
