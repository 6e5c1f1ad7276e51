from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipezoo.errors import ConfigError, OutputError
from pipezoo.results import chrome_trace as perfetto
from pipezoo.results.chrome_trace import read_timelines, read_trace, write_timeline
from pipezoo.schedule.action import Op
from pipezoo.simulator.timeline import Timeline
from tests.support.timelines import timeline


def assert_equal(read: Timeline, written: Timeline) -> None:
    for field in fields(Timeline):
        left, right = getattr(read, field.name), getattr(written, field.name)
        np.testing.assert_array_equal(left, right, err_msg=field.name)
        assert getattr(left, "dtype", None) == getattr(right, "dtype", None), field.name


def events(path: Path, kind: str) -> list[dict]:
    return [event for event in json.loads(path.read_text())["traceEvents"] if event["ph"] == kind]


def test_predicted_and_measured_read_back_to_the_last_bit(tmp_path: Path) -> None:
    written = [timeline(4, 8, True, 1e-3), timeline(4, 8, False, 1e-3, 0.3, "measured")]
    write_timeline(tmp_path / "timeline.json", written)
    for left, right in zip(read_timelines(tmp_path / "timeline.json"), written, strict=True):
        assert_equal(left, right)


@given(st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)), max_size=5))
def test_any_times_read_back_to_the_last_bit(tmp_path_factory: pytest.TempPathFactory, times: list) -> None:
    path = tmp_path_factory.mktemp("times") / "timeline.json"
    ints = np.arange(len(times), dtype=np.int32)
    start = np.array([min(pair) for pair in times], dtype=np.float64)
    end = np.array([max(pair) for pair in times], dtype=np.float64)
    written = Timeline(ints, ints, np.zeros(len(times), np.int8), ints, start, end, len(times), "measured")
    write_timeline(path, [written])
    assert_equal(read_timelines(path)[0], written)


def test_ranks_without_spans_and_actions_without_microbatch_are_kept(tmp_path: Path) -> None:
    int32 = np.array([1], dtype=np.int32)
    reduce = np.array([Op.REDUCE_GRAD], dtype=np.int8)
    written = Timeline(int32, int32, reduce, -int32, np.array([0.5]), np.array([0.75]), 4, "measured")
    write_timeline(tmp_path / "timeline.json", [written])
    assert_equal(read_timelines(tmp_path / "timeline.json")[0], written)
    assert events(tmp_path / "timeline.json", "X")[0]["name"] == "1REDUCE_GRAD"


def test_a_timeline_without_spans_reads_back(tmp_path: Path) -> None:
    empty = np.empty(0)
    ints = empty.astype(np.int32)
    written = Timeline(ints, ints, empty.astype(np.int8), ints, empty, empty, 2, "measured")
    write_timeline(tmp_path / "timeline.json", [written])
    assert_equal(read_timelines(tmp_path / "timeline.json")[0], written)


def test_each_timeline_is_a_process_and_each_rank_a_thread(tmp_path: Path) -> None:
    write_timeline(tmp_path / "timeline.json", [timeline(2, 2), timeline(2, 2, source="measured")])
    named = {(e["name"], e["pid"], e["tid"]): e["args"].get("name") for e in events(tmp_path / "timeline.json", "M")}
    assert named[("process_name", 0, 0)] == "predicted"
    assert named[("process_name", 1, 0)] == "measured"
    assert named[("thread_name", 1, 1)] == "rank 1"


def test_a_span_says_what_ran_and_when_in_microseconds(tmp_path: Path) -> None:
    write_timeline(tmp_path / "timeline.json", [timeline(2, 2, seconds=1e-3)])
    span = next(event for event in events(tmp_path / "timeline.json", "X") if event["name"] == "1B0")
    assert (span["ts"], span["dur"], span["tid"], span["cat"]) == (2000, 2000, 1, "B")
    assert span["args"] == {"stage": 1, "microbatch": 0}


def test_arrows_follow_each_microbatch_between_ranks_and_never_within_one(tmp_path: Path) -> None:
    write_timeline(tmp_path / "timeline.json", [timeline(3, 2)])
    spans = {event["name"]: event for event in events(tmp_path / "timeline.json", "X")}
    forward, backward = [spans[name] for name in ("0F1", "1F1", "2F1")], [spans[name] for name in ("2B1", "1B1", "0B1")]
    for way in (forward, backward):
        assert len({span["bind_id"] for span in way}) == 1
        assert [("flow_in" in span, "flow_out" in span) for span in way] == [(False, True), (True, True), (True, False)]
    assert len({span["bind_id"] for span in spans.values()}) == 4  # two microbatches, there and back

    on_one_rank = timeline(3, 2)
    on_one_rank = replace(on_one_rank, rank=np.zeros_like(on_one_rank.rank))
    write_timeline(tmp_path / "timeline.json", [on_one_rank])
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
    write_timeline(tmp_path / "timeline.json", [twice])
    assert len({event["bind_id"] for event in events(tmp_path / "timeline.json", "X")}) == 4


def test_the_unit_of_a_unit_cost_is_kept(tmp_path: Path) -> None:
    write_timeline(tmp_path / "timeline.json", [timeline(2, 2)], unit="unit")
    assert read_trace(tmp_path / "timeline.json")[1] == "unit"


def test_a_time_that_is_not_finite_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    endless = timeline(2, 2)
    endless.end[-1] = np.inf
    with pytest.raises(ValueError, match="predicted one has a time that is not finite"):
        write_timeline(tmp_path / "timeline.json", [endless])
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_exit_six(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written: No such file or directory"):
        write_timeline(tmp_path / "missing" / "timeline.json", [timeline(2, 2)])


NAMED = {"ph": "M", "name": "process_name", "pid": 0, "tid": 0, "args": {"name": "x"}}
RANK = {"ph": "M", "name": "thread_name", "pid": 0, "tid": 0, "args": {"name": "x"}}
SPAN = {"ph": "X", "name": "0F0", "cat": "F", "pid": 0, "tid": 0, "ts": 0, "dur": 1, "args": {"stage": 0}}


def trace(*events: object) -> str:
    return json.dumps({"otherData": {"unit": "s"}, "traceEvents": events})


@pytest.fixture(autouse=True)
def _read_what_is_in_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has just written a timeline knows it; these tests want to know what the file says."""
    monkeypatch.setattr(perfetto, "_WRITTEN", Forgetful())


class Forgetful(dict):
    def __setitem__(self, key: object, value: object) -> None:
        pass


def test_what_was_just_written_is_known_until_somebody_else_writes_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perfetto, "_WRITTEN", {})
    write_timeline(path := tmp_path / "timeline.json", [kept := timeline(2, 3)], "unit")
    with monkeypatch.context() as nothing_parses:
        nothing_parses.setattr(perfetto, "_load", None)
        assert read_trace(path) == ([kept], "unit")

    path.write_text(path.read_text().replace('"unit": "unit"', '"unit": "s"'))

    assert read_trace(path)[1] == "s"


def test_a_file_that_others_spelled_reads_the_same(tmp_path: Path) -> None:
    write_timeline(ours := tmp_path / "ours.json", [timeline(2, 3), timeline(2, 3, jitter=0.2, source="measured")])
    theirs = tmp_path / "theirs.json"
    theirs.write_text(json.dumps(json.loads(ours.read_text(), parse_float=str), indent=1))  # digits as they were

    for one, other in zip(read_timelines(theirs), read_timelines(ours), strict=True):
        for name in ("rank", "stage", "op", "microbatch", "start", "end"):
            assert (getattr(one, name) == getattr(other, name)).all()


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
        read_timelines(tmp_path / "timeline.json")
    assert "\n" not in str(refused.value)
