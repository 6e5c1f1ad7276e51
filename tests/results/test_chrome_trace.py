from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pipezoo.errors import ConfigError
from pipezoo.results.chrome_trace import read_trace, write_trace
from pipezoo.results.trace_waits import Kept
from pipezoo.schedule.action import Op
from pipezoo.simulator.timeline import Timeline
from tests.support.timelines import timeline


def events(path: Path, kind: str) -> list[dict]:
    """Those of one kind; of slices, the actions."""
    found = [event for event in json.loads(path.read_text())["traceEvents"] if event["ph"] == kind]
    return [event for event in found if event.get("cat") != "wait"]


def waits(path: Path) -> list[dict]:
    return [event for event in json.loads(path.read_text())["traceEvents"] if event.get("cat") == "wait"]


def test_predicted_and_measured_read_back_to_the_nanosecond(tmp_path: Path) -> None:
    written = [timeline(4, 8, True, 1e-3), timeline(4, 8, False, 1e-3, 0.3, "measured")]
    write_trace(tmp_path / "timeline.json", written)
    for read, line in zip(read_trace(tmp_path / "timeline.json"), written, strict=True):
        assert (read.source, read.num_ranks, read.unit) == (line.source, line.num_ranks, "s")
        for name in ("rank", "stage", "op", "microbatch"):
            np.testing.assert_array_equal(getattr(read, name), getattr(line, name))
        np.testing.assert_allclose(read.start, line.start, atol=1e-9)
        np.testing.assert_allclose(read.end, line.end, atol=1e-9)


def test_neighbours_that_do_not_overlap_do_not_overlap_in_the_trace(tmp_path: Path) -> None:
    write_trace(tmp_path / "timeline.json", [timeline(1, 64, seconds=1.2345678e-6, jitter=0.5)])
    spans = events(tmp_path / "timeline.json", "X")
    nanoseconds = [(round(1e3 * span["ts"]), round(1e3 * (span["ts"] + span["dur"]))) for span in spans]
    assert all(end <= start for (_, end), (start, _) in pairwise(nanoseconds))


def test_an_action_without_microbatch_is_named_by_its_stage(tmp_path: Path) -> None:
    int32 = np.array([1], dtype=np.int32)
    reduce = np.array([Op.REDUCE_GRAD], dtype=np.int8)
    written = Timeline(int32, int32, reduce, -int32, np.array([0.5]), np.array([0.75]), 4, "measured")
    write_trace(tmp_path / "timeline.json", [written])
    assert events(tmp_path / "timeline.json", "X")[0]["name"] == "1REDUCE_GRAD"
    assert read_trace(tmp_path / "timeline.json")[0].num_ranks == 4


def test_each_timeline_is_a_process_and_each_rank_a_thread(tmp_path: Path) -> None:
    write_trace(tmp_path / "timeline.json", [timeline(2, 2), timeline(2, 2, source="measured")])
    named = {(e["name"], e["pid"], e["tid"]): e["args"].get("name") for e in events(tmp_path / "timeline.json", "M")}
    assert named[("process_name", 0, 0)] == "predicted"
    assert named[("process_name", 1, 0)] == "measured"
    assert named[("thread_name", 1, 1)] == "rank 1"


def test_a_span_says_what_ran_and_when_in_microseconds(tmp_path: Path) -> None:
    write_trace(tmp_path / "timeline.json", [timeline(2, 2, seconds=1e-3)])
    span = next(event for event in events(tmp_path / "timeline.json", "X") if event["name"] == "1B0")
    assert (span["ts"], span["dur"], span["tid"], span["cat"]) == (2000, 2000, 1, "B")
    assert span["args"] == {"stage": 1, "microbatch": 0}


def test_arrows_follow_each_microbatch_between_ranks_and_never_within_one(tmp_path: Path) -> None:
    write_trace(tmp_path / "timeline.json", [timeline(3, 2)])
    spans = {event["name"]: event for event in events(tmp_path / "timeline.json", "X")}
    forward, backward = [spans[name] for name in ("0F1", "1F1", "2F1")], [spans[name] for name in ("2B1", "1B1", "0B1")]
    for way in (forward, backward):
        assert len({span["bind_id"] for span in way}) == 1
        assert [("flow_in" in span, "flow_out" in span) for span in way] == [(False, True), (True, True), (True, False)]
    assert len({span["bind_id"] for span in spans.values()}) == 4  # two microbatches, there and back

    on_one_rank = timeline(3, 2)
    on_one_rank = replace(on_one_rank, rank=np.zeros_like(on_one_rank.rank))
    write_trace(tmp_path / "timeline.json", [on_one_rank])
    assert not any("bind_id" in event for event in events(tmp_path / "timeline.json", "X"))


def test_two_recorded_steps_have_arrows_of_their_own(tmp_path: Path) -> None:
    once = timeline(2, 1)
    twice = Timeline(
        *(np.concatenate([getattr(once, name)] * 2) for name in ("rank", "stage", "op", "microbatch")),
        np.concatenate([once.start, once.start + 100]),
        np.concatenate([once.end, once.end + 100]),
        2,
        "measured",
    )
    write_trace(tmp_path / "timeline.json", [twice])
    assert len({event["bind_id"] for event in events(tmp_path / "timeline.json", "X")}) == 4


def test_the_unit_of_a_unit_cost_is_kept(tmp_path: Path) -> None:
    write_trace(tmp_path / "timeline.json", [replace(timeline(2, 2), unit="unit")])
    assert read_trace(tmp_path / "timeline.json")[0].unit == "unit"


NAMED = {"ph": "M", "name": "process_name", "pid": 0, "tid": 0, "args": {"name": "x"}}
RANK = {"ph": "M", "name": "thread_name", "pid": 0, "tid": 0, "args": {"name": "x"}}
SPAN = {"ph": "X", "name": "0F0", "cat": "F", "pid": 0, "tid": 0, "ts": 0, "dur": 1, "args": {"stage": 0}}


def trace(*events: object) -> str:
    return json.dumps({"otherData": {"unit": "s"}, "traceEvents": events})


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "[]",
        "{}",
        trace(1),
        trace(NAMED, RANK, SPAN | {"cat": "Z"}),
        trace(NAMED, RANK, SPAN | {"args": {}}),
        trace(NAMED, RANK, SPAN | {"args": {"stage": 2**70}}),
        trace(NAMED, RANK, SPAN | {"tid": 1}),
        trace(NAMED, RANK | {"tid": 999999999}),
        trace(NAMED, RANK, SPAN | {"ts": "1e999"}),
    ],
)
def test_a_file_that_is_no_timeline_is_one_line_with_exit_code_two(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "timeline.json").write_text(text)
    with pytest.raises(ConfigError, match=r"^file=.*timeline\.json: ") as refused:
        read_trace(tmp_path / "timeline.json")
    assert "\n" not in str(refused.value)


def two_ranks(tmp_path: Path) -> Path:
    """Rank 0 waits from 2 to 4 for 1B0, which ends at 3."""
    columns = {"rank": [0, 0, 1, 1, 0], "stage": [0, 0, 1, 1, 0], "op": [Op.F, Op.F, Op.F, Op.B, Op.B]}
    ints = {name: np.array(values, dtype=np.int32) for name, values in columns.items()}
    times = np.array([[0.0, 1.0], [1.0, 2.0], [1.0, 2.0], [2.0, 3.0], [4.0, 5.0]])
    line = Timeline(
        ints["rank"],
        ints["stage"],
        ints["op"].astype(np.int8),
        np.array([0, 1, 0, 0, 0], np.int32),
        *times.T,
        2,
        "measured",
    )
    write_trace(tmp_path / "timeline.json", [line], Kept(np.array([100.0, 50.0]), np.zeros(2)))
    return tmp_path / "timeline.json"


def test_a_wait_is_a_slice_that_names_what_it_waits_for(tmp_path: Path) -> None:
    found = [event for event in waits(two_ranks(tmp_path)) if event["tid"] == 0]

    assert [(e["name"], e["ts"], e["dur"], e["args"]["cause"]) for e in found] == [
        ("waits for 1B0", 2e6, 1e6, "input"),
        ("message", 3e6, 1e6, "message"),
    ]
    assert found[0]["args"] == {"cause": "input", "waits_for": "1B0", "of_rank": 1, "before": "0B0"}


def test_a_message_is_under_way_from_its_sender_to_its_receiver(tmp_path: Path) -> None:
    path = two_ranks(tmp_path)
    began, ended = events(path, "b"), events(path, "e")

    assert [(e["name"], e["ts"]) for e in began] == [("1B0 > 0B0", 3e6), ("0F0 > 1F0", 1e6)]
    assert {e["id"]: e["ts"] for e in ended} == {began[0]["id"]: 4e6, began[1]["id"]: 1e6}


def test_memory_is_a_counter_per_rank(tmp_path: Path) -> None:
    found = [(e["name"], e["ts"], e["args"]["bytes"]) for e in events(two_ranks(tmp_path), "C")]

    assert found == [
        ("held by rank 0", 0, 100),
        ("held by rank 0", 1e6, 200),
        ("held by rank 1", 1e6, 50),
        ("held by rank 1", 3e6, 0),
        ("held by rank 0", 5e6, 100),
    ]
