from __future__ import annotations

import zipfile
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipezoo.errors import ConfigError, OutputError
from pipezoo.results import timeline_file
from pipezoo.results.timeline_file import load_timelines, read_timelines, save_timelines, write_timelines
from pipezoo.schedule.action import Op
from pipezoo.simulator.timeline import Timeline
from tests.support.timelines import timeline


def assert_equal(read: Timeline, written: Timeline) -> None:
    for field in fields(Timeline):
        left, right = getattr(read, field.name), getattr(written, field.name)
        np.testing.assert_array_equal(left, right, err_msg=field.name)
        assert getattr(left, "dtype", None) == getattr(right, "dtype", None), field.name


def test_predicted_and_measured_read_back_to_the_last_bit(tmp_path: Path) -> None:
    written = [timeline(4, 8, True, 1e-3), timeline(4, 8, False, 1e-3, 0.3, "measured")]
    save_timelines(tmp_path, written)
    for left, right in zip(load_timelines(tmp_path), written, strict=True):
        assert_equal(left, right)


@given(st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9)), max_size=5))
def test_any_times_read_back_to_the_last_bit(tmp_path_factory: pytest.TempPathFactory, times: list) -> None:
    path = tmp_path_factory.mktemp("times") / "timeline.npz"
    ints = np.arange(len(times), dtype=np.int32)
    start = np.array([min(pair) for pair in times], dtype=np.float64)
    end = np.array([max(pair) for pair in times], dtype=np.float64)
    written = Timeline(ints, ints, np.zeros(len(times), np.int8), ints, start, end, len(times), "measured")
    write_timelines(path, [written])
    assert_equal(read_timelines(path)[0], written)


def test_ranks_without_spans_and_actions_without_microbatch_are_kept(tmp_path: Path) -> None:
    int32 = np.array([1], dtype=np.int32)
    reduce = np.array([Op.REDUCE_GRAD], dtype=np.int8)
    written = Timeline(int32, int32, reduce, -int32, np.array([0.5]), np.array([0.75]), 4, "measured")
    save_timelines(tmp_path, [written])
    assert_equal(load_timelines(tmp_path)[0], written)


def test_no_timeline_and_one_without_spans_read_back(tmp_path: Path) -> None:
    empty = np.empty(0)
    ints = empty.astype(np.int32)
    written = Timeline(ints, ints, empty.astype(np.int8), ints, empty, empty, 2, "measured")
    write_timelines(tmp_path / "one.npz", [written])
    assert_equal(read_timelines(tmp_path / "one.npz")[0], written)
    write_timelines(tmp_path / "none.npz", [])
    assert read_timelines(tmp_path / "none.npz") == []


def test_the_unit_of_a_unit_cost_is_kept(tmp_path: Path) -> None:
    save_timelines(tmp_path, [replace(timeline(2, 2), unit="unit")])
    assert load_timelines(tmp_path)[0].unit == "unit"


def test_a_folder_without_either_file_has_no_timelines(tmp_path: Path) -> None:
    assert load_timelines(tmp_path) == []


def test_the_exact_file_is_read_and_not_the_trace_beside_it(tmp_path: Path) -> None:
    save_timelines(tmp_path, [timeline(2, 2)])
    (tmp_path / "timeline.json").write_text("{}")
    assert load_timelines(tmp_path)[0].num_spans == 8


def test_of_many_spans_the_trace_is_left_out_and_of_too_many_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline_file, "MOST_TRACE_SPANS", 7)
    said = save_timelines(tmp_path, [timeline(2, 2)])
    assert said == "timeline.npz alone: 8 spans, and timeline.json holds 7 at most"
    assert [path.name for path in tmp_path.iterdir()] == ["timeline.npz"]
    (tmp_path / "timeline.npz").unlink()

    monkeypatch.setattr(timeline_file, "MOST_SPANS", 7)
    assert save_timelines(tmp_path, [timeline(2, 2)]) == "not written: 8 spans, of 7 at most"
    assert list(tmp_path.iterdir()) == []


def test_a_time_that_is_not_finite_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    endless = timeline(2, 2)
    endless.end[-1] = np.inf
    with pytest.raises(ValueError, match="predicted: a time is not finite"):
        save_timelines(tmp_path, [endless])
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_exit_six(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written: No such file or directory"):
        save_timelines(tmp_path / "missing", [timeline(2, 2)])


def changed(path: Path, **arrays: object) -> None:
    """The file with other arrays in it; None: without."""
    with np.load(path) as file:
        kept = {name: file[name] for name in file.files} | arrays
    np.savez(path, **{name: array for name, array in kept.items() if array is not None})


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"rank": None}, "KeyError"),
        ({"start": np.array(["0F0"] * 8)}, "a column of another type"),
        ({"start": np.zeros((8, 1))}, "a column of another type"),
        ({"op": np.array([object()] * 8)}, "Object arrays cannot be loaded"),
        ({"op": np.full(8, 11, np.int8)}, "an op that is none"),
        ({"rank": np.full(8, 2, np.int32)}, "a rank is out of range"),
        ({"rank": np.full(8, -1, np.int32)}, "a rank is out of range"),
        ({"num_ranks": np.array([2**40])}, "a rank is out of range"),
        ({"stage": np.full(8, -1, np.int32)}, "a stage or a microbatch is out of range"),
        ({"end": np.full(8, np.nan)}, "a time is not finite"),
        ({"end": np.zeros(7)}, "columns of another length"),
        ({"offsets": np.array([0, 4])}, "columns of another length"),
        ({"offsets": np.array([0, 9, 8])}, "columns of another length"),
        ({"offsets": np.array([0, 4, 8])}, "another number of timelines"),
    ],
)
def test_arrays_that_are_no_timeline_are_one_line_with_exit_code_two(tmp_path: Path, arrays: dict, why: str) -> None:
    write_timelines(path := tmp_path / "timeline.npz", [timeline(2, 2)])
    changed(path, **arrays)
    with pytest.raises(ConfigError, match=rf"^file=.*timeline\.npz: not a timeline of pipezoo \(.*{why}") as refused:
        read_timelines(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all"])
def test_a_file_that_is_no_archive_is_one_line_with_exit_code_two(tmp_path: Path, content: bytes) -> None:
    (path := tmp_path / "timeline.npz").write_bytes(content)
    with pytest.raises(ConfigError, match="not a timeline of pipezoo"):
        read_timelines(path)


def test_a_torn_file_is_one_line_with_exit_code_two(tmp_path: Path) -> None:
    write_timelines(path := tmp_path / "timeline.npz", [timeline(4, 8)])
    whole = path.read_bytes()
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(ConfigError, match=r"^file=.*timeline\.npz: "):
            read_timelines(path)


def test_a_flipped_byte_never_ends_in_anything_but_that_line(tmp_path: Path) -> None:
    write_timelines(path := tmp_path / "timeline.npz", [timeline(4, 8)])
    whole = path.read_bytes()
    for at in range(0, len(whole), 13):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with suppress(ConfigError):
            read_timelines(path)


def test_an_archive_that_unfolds_into_more_than_fits_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "timeline.npz"
    monkeypatch.setattr(timeline_file, "LARGEST_FILE", 2**24)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("rank.npy", "w") as file:
        for _ in range(17):
            file.write(bytes(2**20))
    with pytest.raises(ConfigError, match="17825792 bytes; at most 16777216 are read"):
        read_timelines(path)
