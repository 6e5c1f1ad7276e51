"""The orders that are kept as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipezoo.schedule.action import Op
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules.from_csv import from_csv
from tests.support import zoo


@pytest.mark.parametrize(
    ("name", "stage_to_rank", "num_microbatches"),
    [
        ("v_shape", (0, 1, 1, 0), 2),
        ("unbalanced", (0, 0, 1, 1, 0), 2),
        ("split_backward", (0, 1), 4),
        ("early_receives", (0, 1), 3),
    ],
)
def test_the_file_says_where_stages_are_and_how_many_microbatches(name, stage_to_rank, num_microbatches):
    schedule = from_csv(file=zoo.file(name))
    assert (schedule.stage_to_rank, schedule.num_microbatches) == (stage_to_rank, num_microbatches)
    assert schedule.name == name


def test_these_are_all_of_them():
    assert sorted(zoo.FILES) == ["early_receives", "split_backward", "unbalanced", "v_shape"]
    assert zoo.node("csv")["file"] == "???"


def test_split_backward_has_whole_and_split_backwards():
    ops = set(from_csv(zoo.file("split_backward")).op.tolist())
    assert ops == {Op.F, Op.B, Op.I, Op.W}


def test_early_receives_posts_two_receives_before_it_needs_one():
    schedule = from_csv(zoo.file("early_receives"))
    assert schedule.has_messages
    assert [str(action) for action in schedule.order[1]][:3] == ["1RECV_F0", "1RECV_F1", "1F0"]
    assert not schedule.compute_only().has_messages


def test_a_relative_path_is_read_from_where_the_user_is(tmp_path, monkeypatch):
    (tmp_path / "mine.csv").write_text("0F0,0B0\n")
    monkeypatch.chdir(tmp_path)
    assert from_csv("mine.csv") == Schedule.from_orders([["0F0", "0B0"]])


def test_a_file_is_proved_once_and_anew_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, asked = tmp_path / "mine.csv", []
    prove = Schedule.from_csv
    monkeypatch.setattr(Schedule, "from_csv", lambda path: asked.append(path) or prove(path))
    file.write_text("0F0,0B0\n")
    assert from_csv(file) is from_csv(str(file))
    assert len(asked) == 1
    file.write_text("0F0,0F1,0B0,0B1\n")
    assert from_csv(file).num_microbatches == 2
    assert len(asked) == 2
