from __future__ import annotations

import gzip
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipezoo.errors import ScheduleError
from pipezoo.schedule import csv_io
from pipezoo.schedule.lowering import with_messages
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules.dualpipev import dualpipev
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.schedules.zbv import zbv

CELLS = (
    *("0F0", "12B345", "3I7", "999999W999999999", "2SEND_F0", "3RECV_F0", "3SEND_B0", "2RECV_B0"),
    *("2REDUCE_GRAD", "2UNSHARD", "2RESHARD", "(0F4;7B2)OVERLAP_F_B", "", " ", " 0F1", "0F1 "),
    *("F0", "0F", "00", "F", "0X0", "0f0", "1000000F0", "0F1000000000", "2UNSHARD0", "2SEND_F", "2SEND_", "2SEND_X1"),
    *("(0F0", "0F0)", "0F0;0B0", "(0F0;0B0)", "(0F0;0SEND_F0)OVERLAP_F_B", "(0F0)OVERLAP_F_B"),
    *("OVERLAP_F_B", "(;)OVERLAP_F_B", "0OVERLAP_F_B0", "\x01", "0F0\x01", "é"),
    *("(0F0;0F1;0F2)OVERLAP_F_B", "(0F0;(0F1;0F2)OVERLAP_F_B)OVERLAP_F_B"),
    *('"0F0"', '"0F0,0F1"', "0F0F0", "0FF0", "0F0_"),
)  # fmt: skip


def equal(left: csv_io.Columns, right: csv_io.Columns) -> bool:
    return all(
        (a is None and b is None) or (a is not None and b is not None and a.dtype == b.dtype and np.array_equal(a, b))
        for a, b in zip(left, right, strict=True)
    )


@settings(deadline=None, max_examples=400)
@given(
    st.lists(st.lists(st.sampled_from(CELLS), max_size=4), max_size=4),
    st.sampled_from(("\n", "\r\n")),
    st.booleans(),
)
def test_what_is_read_by_arrays_is_what_is_read_cell_by_cell(rows: list, ending: str, at_end: bool) -> None:
    data = (ending.join(",".join(cells) for cells in rows) + ending * at_end).encode()
    if (columns := csv_io._by_arrays(data)) is not None:
        assert equal(columns, csv_io._cell_by_cell(data))


@pytest.mark.parametrize("cell", CELLS[:12])
def test_cells_that_are_spelled_right_are_read_by_arrays(cell: str) -> None:
    data = f"{cell},,{cell}\n\n{cell}".encode()
    columns = csv_io._by_arrays(data)
    assert columns is not None
    assert equal(columns, csv_io._cell_by_cell(data))


ORDERS = [one_f_one_b(3, 12), zbv(2, 5), dualpipev(2, 8), with_messages(one_f_one_b(3, 5))]


@pytest.mark.parametrize("schedule", ORDERS, ids=lambda schedule: f"{schedule.name}-{schedule.num_actions}")
@pytest.mark.parametrize("size", [24, 64, 1000])
def test_texts_that_are_cut_anywhere_into_chunks_are_the_same(
    schedule: Schedule, size: int, tmp_path, monkeypatch
) -> None:
    text = schedule.to_csv()
    assert text.splitlines() == [",".join(map(str, order)) for order in schedule.order]

    monkeypatch.setattr(csv_io, "CHUNK", size)

    assert schedule.to_csv() == text
    columns = csv_io._by_arrays(text.encode())
    assert columns is not None
    assert equal(columns, csv_io._cell_by_cell(text.encode()))


def test_a_compressed_file_is_read_and_named_as_the_file_inside(tmp_path) -> None:
    (tmp_path / "mine.csv.gz").write_bytes(gzip.compress(zbv(2, 4).to_csv().encode()))
    schedule = Schedule.from_csv(tmp_path / "mine.csv.gz")
    assert (schedule, schedule.name) == (zbv(2, 4), "mine")


def test_a_fault_in_a_compressed_file_is_said_with_row_and_column(tmp_path) -> None:
    (tmp_path / "mine.csv.gz").write_bytes(gzip.compress(b"0F0,0B0\n1F0,,1X0"))
    with pytest.raises(ScheduleError, match=r"^file=.*mine\.csv\.gz: row 2, column 3: '1X0' is not an action"):
        Schedule.from_csv(tmp_path / "mine.csv.gz")


@pytest.mark.parametrize("cut", [2, 12, 40])
def test_a_torn_compressed_file_is_one_line(tmp_path, cut: int) -> None:
    (tmp_path / "mine.csv.gz").write_bytes(gzip.compress(zbv(2, 4).to_csv().encode())[:cut])
    with pytest.raises(ScheduleError, match=r"^file=.*mine\.csv\.gz: not a file of gzip \(") as error:
        Schedule.from_csv(tmp_path / "mine.csv.gz")
    assert "\n" not in str(error.value)


def test_a_file_that_unfolds_into_more_than_is_read_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(csv_io, "LARGEST_FILE", 2**20)
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(bytes(2**24)))
    with pytest.raises(ScheduleError, match=r"bomb\.csv\.gz: more than 1048576 bytes; at most so many are read$"):
        Schedule.from_csv(tmp_path / "bomb.csv.gz")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ScheduleError, match=r"pipe\.csv: is no regular file$"):
        Schedule.from_csv(tmp_path / "pipe.csv")
