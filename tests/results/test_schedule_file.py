from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from pipezoo.errors import OutputError
from pipezoo.results import schedule_file
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules.zbv import zbv


def test_an_order_is_written_as_text_and_read_back(tmp_path: Path) -> None:
    path = schedule_file.write_schedule(tmp_path, zbv(2, 4))
    assert path == schedule_file.schedule_file(tmp_path) == tmp_path / "schedule.csv"
    assert path.read_text() == zbv(2, 4).to_csv()


def test_a_very_long_order_is_written_compressed_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule_file, "MOST_PLAIN", 47)  # of 48 actions
    path = schedule_file.write_schedule(tmp_path, zbv(2, 4))
    assert path == schedule_file.schedule_file(tmp_path) == tmp_path / "schedule.csv.gz"
    assert gzip.decompress(path.read_bytes()).decode() == zbv(2, 4).to_csv()
    assert Schedule.from_csv(path) == zbv(2, 4)


def test_equal_orders_are_equal_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule_file, "MOST_PLAIN", 0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        schedule_file.write_schedule(tmp_path / name, zbv(2, 4))
    assert len({(tmp_path / name / "schedule.csv.gz").read_bytes() for name in ("a", "b")}) == 1


def test_a_folder_without_an_order_has_none_and_a_missing_one_is_exit_six(tmp_path: Path) -> None:
    assert schedule_file.schedule_file(tmp_path) is None
    with pytest.raises(OutputError, match="cannot be written"):
        schedule_file.write_schedule(tmp_path / "missing", zbv(2, 4))
