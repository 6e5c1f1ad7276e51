from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipezoo.errors import ScheduleError
from pipezoo.schedule.action import MESSAGES
from pipezoo.schedule.lowering import with_messages
from pipezoo.schedule.nccl_order import check_queues
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules.from_csv import from_csv
from tests.schedule.test_lowering import left_on_queues
from tests.support import zoo
from tests.support.plain_simulation import schedules


def test_two_ranks_that_both_send_first_are_named():
    orders = [
        "0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B0 0B0 0RECV_B1 0B1",
        "1RECV_F0 1F0 1B0 1SEND_B0 1RECV_F1 1F1 1B1 1SEND_B1",
    ]
    with pytest.raises(ScheduleError) as error:
        check_queues(Schedule.from_orders([order.split() for order in orders]))
    assert str(error.value) == (
        "on a GPU the messages wait for each other: rank 0 at 0SEND_F1, rank 1 at 1SEND_B0; "
        "queue them in one order on both ranks, or write none"
    )


@pytest.mark.parametrize("name", zoo.FILES)
def test_the_orders_kept_as_files_pass(name):
    check_queues(with_messages(from_csv(zoo.file(name))))


def test_an_order_without_messages_passes():
    check_queues(from_csv(zoo.file("v_shape")))


def rearranged(schedule, chance, moves):
    """The same with messages moved about, as far as the table stays legal."""
    orders = [list(order) for order in schedule.order]
    for _ in range(moves):
        order = orders[chance.randrange(len(orders))]
        at = [i for i in range(len(order) - 1) if {order[i].op, order[i + 1].op} & set(MESSAGES)]
        if at:
            i = chance.choice(at)
            order[i], order[i + 1] = order[i + 1], order[i]
            try:
                schedule = Schedule.from_orders(orders)
            except ScheduleError:
                order[i], order[i + 1] = order[i + 1], order[i]
    return schedule


@settings(deadline=None, max_examples=100)
@given(schedules(pairs=False), st.randoms(use_true_random=False), st.integers(1, 20))
def test_it_finds_exactly_what_the_plain_queues_find(schedule, chance, moves):
    moved = rearranged(with_messages(schedule), chance, moves)
    try:
        check_queues(moved)
        stands = False
    except ScheduleError:
        stands = True
    assert stands == bool(left_on_queues(list(moved.order)))
