from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipezoo.report.live import EVERY, FEW_LOOKS, LivePage
from pipezoo.schedule.action import Action
from pipezoo.supervisor.stall_diagnosis import RankStatus

ORDERS = [["0F0", "0SEND_F0", "0RECV_B0", "0B0"], ["1RECV_F0", "1F0", "1B0", "1SEND_B0"]]
PARSED = [[Action.parse(word) for word in order] for order in ORDERS]


def statuses(*at: int, step: int = 3) -> list[RankStatus]:
    return [RankStatus(f"rank {i}", PARSED[i], step, place, 0.5) for i, place in enumerate(at)]


@pytest.fixture
def clock():
    class Clock:
        now = 100.0

        def __call__(self) -> float:
            return self.now

    return Clock()


@pytest.fixture
def page(tmp_path: Path, clock) -> LivePage:
    return LivePage(tmp_path, "gpt, 1f1b, 2 ranks", steps=10, batch_size=32, clock=clock)


def test_a_run_that_is_over_at_once_writes_no_page(page: LivePage, tmp_path: Path) -> None:
    page.look(statuses(0, 1))
    assert list(tmp_path.iterdir()) == []


def test_it_says_where_each_rank_is_and_how_far_the_run_is(page: LivePage, tmp_path: Path, clock) -> None:
    for loss in (4.0, 2.0):
        page.step(loss, 0.5)
    clock.now += EVERY
    page.look(statuses(3, 1))  # rank 0 stands at 0B0, whose gradient rank 1 has not sent
    text = (tmp_path / "report.html").read_text()

    assert '<meta http-equiv="refresh" content="2">' in text
    assert "2 of 10" in text
    assert "500 ms" in text
    assert ">64<" in text  # samples a second
    assert "0RECV_B0 of rank 1" in text
    assert "<b>running</b>" in text


def test_a_rank_that_the_others_wait_for_is_named(page: LivePage, tmp_path: Path, clock) -> None:
    for _ in range(FEW_LOOKS):
        page.look(statuses(3, 1))
    clock.now += EVERY
    page.look(statuses(3, 1))

    assert page.slowest() == 1
    assert "rank 1 holds up the others: it computes while they wait" in (tmp_path / "report.html").read_text()


def test_ranks_that_wait_for_each_other_in_turn_are_not_slow(page: LivePage) -> None:
    for i in range(2 * FEW_LOOKS):
        page.look(statuses(3, 1) if i % 2 else statuses(0, 1, step=4))
    assert page.slowest() is None


def test_a_stopped_rank_does_not_compute(page: LivePage) -> None:
    for _ in range(2 * FEW_LOOKS):
        first, second = statuses(0, 1)
        page.look([replace(first, state="stopped"), second])
    assert page.slowest() != 0


def test_a_folder_that_is_gone_costs_the_run_nothing(tmp_path: Path, clock) -> None:
    page = LivePage(tmp_path / "gone", "a", steps=1, batch_size=1, clock=clock)
    clock.now += EVERY
    page.look(statuses(0, 1))
