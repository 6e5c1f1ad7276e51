from __future__ import annotations

import json

import pytest

from pipezoo.explain.__main__ import main
from pipezoo.results.run_dir import write_json, write_text
from pipezoo.results.schedule_file import write_schedule
from pipezoo.schedules.gpipe import gpipe
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.simulate import simulate

SHARES = {"fill_and_drain": 0.2, "order": 0.05, "uneven_stages": 0.1, "messages": 0.0, "dispatch": 0.0, "slowed": 0.0}
OVERRIDES = ["model=multi_mlp", "stages=2", "schedule=gpipe", "schedule.x=1", "optimizer.lr=0.1"]


def folder_of(path, schedule, cost, **fields):
    predicted = simulate(schedule, cost).step
    result = {
        "status": "ok",
        "task": "train",
        "model": "multi_mlp",
        "schedule": "gpipe",
        "launch": "virtual",
        "num_stages": schedule.num_stages,
        "num_ranks": schedule.num_ranks,
        "num_microbatches": schedule.num_microbatches,
        "batch_size": 32,
        "verified": "exact",
        "step_seconds": {"median": predicted, "min": predicted, "max": predicted},
        "prediction": {"step_seconds": predicted, "cost": cost.to_dict()},
        "bubble": {"measured": {"makespan": 0.35, "causes": SHARES}},
    }
    path.mkdir(parents=True)
    write_json(path / "result.json", result | fields)
    write_schedule(path, schedule)
    (path / ".hydra").mkdir()
    write_text(path / ".hydra" / "overrides.yaml", "".join(f"- {word}\n" for word in OVERRIDES))
    return path


def said(capsys, *words):
    code = main([*map(str, words)])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    return printed.out.splitlines()


def test_it_says_in_five_sentences_what_to_change_and_why(tmp_path, capsys):
    cost = Cost(F=[1e-3, 1e-3], I=[1e-3, 3e-3], W=[1e-3, 1e-3])
    lines = said(capsys, folder_of(tmp_path / "run", gpipe(2, 4), cost))

    assert lines[0].startswith("multi_mlp, gpipe, 2 stages on 2 ranks, 4 microbatches: ")
    change, bubble, cause, stages, trust = lines[2:7]
    assert change == (
        "Next: split=balanced split.by=time is predicted to save 13 % (python -m pipezoo model=multi_mlp stages=2 "
        "schedule=gpipe schedule.x=1 optimizer.lr=0.1 split=balanced split.by=time); then "
        "schedule=interleaved_zero_bubble: 8.7 %; microbatches=8 with batch_size=64: 6.5 %."
    )
    assert bubble == (
        "A step takes 23 ms, and ranks are idle for 35 % of it: "
        "35.0 % = 20.0 fill and drain + 5.0 order + 10.0 uneven stages."
    )
    assert cause.startswith("The largest part is fill and drain, 20 % of all time: 4 microbatches on 2 ranks")
    assert stages == (
        "Stage 1 takes 1.7 times stage 0 (5 ms against 3 ms a microbatch); "
        "equal stages would make the order 13 % shorter."
    )
    assert trust.endswith("(+0 %), so predictions here are good to 3.0 %; its numbers are exact.")


def test_other_orders_come_with_their_error_bars_and_their_commands(tmp_path, capsys):
    cost = Cost(F=[1e-3] * 2, I=[1e-3] * 2, W=[1e-3] * 2, activation_bytes=[1024] * 2)
    lines = said(capsys, folder_of(tmp_path / "run", gpipe(2, 4), cost), "--top", 1)
    at = lines.index("What if, predicted from this run's own costs; it took 15 ms:")

    assert lines[at + 1] == "  interleaved_zero_bubble, 2 stages: 13 ms +- 390 us, bubble 7.7 %, 2 KiB"
    assert (
        lines[at + 2]
        == "      python -m pipezoo model=multi_mlp stages=2 optimizer.lr=0.1 schedule=interleaved_zero_bubble"
    )
    assert lines[at + 3].startswith("  and ")


def test_it_explains_the_newest_run_where_none_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "outputs" / "2026-01-01" / "a", one_f_one_b(2, 4), Cost(F=1, B=2).for_stages(2))

    assert said(capsys)[0].endswith("outputs/2026-01-01/a")


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (lambda path: None, "error: folder: none is named, and outputs/ here holds no run\n"),
        (
            lambda path: (
                (path / "outputs/1/a").mkdir(parents=True)
                or (path / "outputs/1/a/result.json").write_text(json.dumps({"task": "simulate"}))
            ),
            "error: folder=outputs/1/a: holds no measured step; task=train and task=verify measure them\n",
        ),
    ],
    ids=["no run", "a simulation"],
)
def test_what_it_cannot_explain_is_one_line(tmp_path, capsys, monkeypatch, made, line):
    monkeypatch.chdir(tmp_path)
    made(tmp_path)

    assert main([]) == 2
    assert capsys.readouterr() == ("", line)
