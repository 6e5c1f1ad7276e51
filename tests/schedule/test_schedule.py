from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings

from pipezoo.errors import ScheduleError
from pipezoo.schedule.action import Action, Op
from pipezoo.schedule.schedule import Schedule
from tests.support.plain_simulation import schedules

SMALL = [["0F0", "0F1", "0B0", "0B1"], ["1F0", "1B0", "1F1", "1B1"]]


def test_the_table_knows_its_size_and_where_stages_are():
    schedule = Schedule.from_orders([["0F0", "3F0", "3B0", "0B0"], ["1F0", "2F0", "2B0", "1B0"]], name="v")
    assert repr(schedule) == "Schedule('v', 2 ranks, 4 stages, 1 microbatch)"
    assert schedule.stage_to_rank == (0, 1, 1, 0)
    assert [schedule.stages_of(rank) for rank in (0, 1)] == [(0, 3), (1, 2)]
    assert schedule.rank.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_order_is_a_list_of_actions_per_rank():
    schedule = Schedule.from_orders(SMALL)
    assert len(schedule.order) == 2
    assert schedule.order[1] == [Action.parse(text) for text in SMALL[1]]
    assert schedule.order[-1] == schedule.order[1]
    assert [len(order) for order in schedule.order] == [4, 4]
    with pytest.raises(IndexError, match="rank 2"):
        schedule.order[2]


def test_idle_entries_are_left_out():
    idle = [["0F0", None, "0F1", "", "0B0", "0B1"], [None, "1F0", "1B0", "1F1", "1B1"]]
    assert Schedule.from_orders(idle) == Schedule.from_orders(SMALL)


def test_source_is_the_action_that_each_one_waits_for():
    schedule = Schedule.from_orders(SMALL)
    assert schedule.source.tolist() == [-1, -1, 5, 7, 0, -1, 1, -1]


def test_the_microbatches_of_a_stage_come_in_their_order():
    schedule = Schedule.from_orders([["0F0", "0F1", "0F2", "0I1", "0B0", "0B2", "0W1"]])
    assert schedule.microbatches_in_order(0, Op.F) == [0, 1, 2]
    assert schedule.microbatches_in_order(0, Op.B, Op.I) == [1, 0, 2]
    assert schedule.microbatches_in_order(0, Op.B, Op.W) == [0, 2, 1]
    assert schedule.splits_backward


def test_equal_orders_are_equal_whatever_their_names():
    first, second = Schedule.from_orders(SMALL, "a"), Schedule.from_orders(SMALL, "b")
    assert first == second
    assert hash(first) == hash(second)
    assert first != Schedule.from_orders([SMALL[0], ["1F0", "1F1", "1B0", "1B1"]])
    paired = [["0F0", "0F1", "(0F2;0B0)OVERLAP_F_B", "0B1", "0B2"]]
    alone = [["0F0", "0F1", "0F2", "0B0", "0B1", "0B2"]]
    assert Schedule.from_orders(paired) != Schedule.from_orders(alone)


def test_nothing_in_it_can_be_changed():
    schedule = Schedule.from_orders([["0F0", "0F1", "(0B0;0F2)OVERLAP_F_B", "0B1", "0B2"]])
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.name = "other"
    for array in (schedule.op, schedule.stage, schedule.microbatch, schedule.offsets, schedule.overlap):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


@pytest.mark.parametrize(("column", "value"), [("stage", 2**40), ("microbatch", 0.5), ("op", 300)])
def test_numbers_that_would_change_in_the_table_are_refused(column, value):
    columns = {"op": [0, 1], "stage": [0, 0], "microbatch": [0, 0], "offsets": [0, 2]}
    columns[column] = [columns[column][0], value]
    with pytest.raises(ScheduleError, match=f"^{column} must be whole numbers that fit in int"):
        Schedule(**{key: np.array(values) for key, values in columns.items()})


@settings(deadline=None, max_examples=150)
@given(schedules())
def test_any_legal_order_survives_lists_and_files(tmp_path_factory, schedule):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_text(schedule.to_csv())
    assert Schedule.from_csv(path) == schedule
    assert Schedule.from_orders(schedule.order) == schedule
    assert Schedule.from_orders([[str(action) for action in order] for order in schedule.order]) == schedule


def read(tmp_path, text):
    (tmp_path / "mine.csv").write_text(text)
    return Schedule.from_csv(tmp_path / "mine.csv")


def test_a_file_is_named_after_itself_and_may_have_idle_cells_and_empty_lines_at_its_end(tmp_path):
    schedule = read(tmp_path, "\ufeff0F0, 0F1 ,,0B0,0B1\r\n,1F0,1B0,1F1,1B1,\r\n\r\n , ,\r\n")
    assert schedule == Schedule.from_orders(SMALL)
    assert schedule.name == "mine"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0F0,0B0\n1F0,1X0", "row 2, column 2: '1X0' is not an action"),
        ("0F0,0B0\n1F0,,1b0", "row 2, column 3: '1b0' is not an action; write <stage><op><microbatch>, like"),
        ("0F0 0B0\n", "row 1, column 1: '0F0 0B0' is not an action"),
        ("0F0,0B0\n1F0,,1F0,1B0", "row 2, column 3: rank 1: 1F0 is there twice; once is right"),
        ("0F0,0B0\n1B0,1F0", "row 2, column 1: rank 1: 1B0 comes before 1F0, which it needs"),
        ("0F0,(0F1;0B0)OVERLAP_F_B,0B0,0B1", "row 1, column 3: rank 0: 0B0 is there twice; once is right"),
        ("0F0\n1F0,1B0", "rank 0: 0B0 is missing; 0F0 needs its backward, this or 0I0 and 0W0"),
        ("0F0,0B0\n\n1F0,1B0", "rank 1 has no action; every rank runs at least one stage"),
        ("", "a schedule needs at least one rank with one action"),
        ("\n\n", "a schedule needs at least one rank with one action"),
        ("0F0,\x000B0", "mine.csv: "),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_row_and_column(tmp_path, text, said):
    with pytest.raises(ScheduleError, match=r"^file=.*mine\.csv: ") as error:
        read(tmp_path, text)
    assert said in str(error.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for path, why in ((tmp_path / "no.csv", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ScheduleError) as error:
            Schedule.from_csv(path)
        assert str(error.value) == f"file={path}: {why}"
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01\x80")
    with pytest.raises(ScheduleError, match=r"binary\.csv: not a text file$"):
        Schedule.from_csv(tmp_path / "binary.csv")
