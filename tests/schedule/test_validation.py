"""Tables with one defect each, and the sentence that says which."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipezoo.errors import ScheduleError
from pipezoo.schedule.action import Action, Op
from pipezoo.schedule.schedule import Schedule
from tests.support.plain_simulation import schedules

ONE_F_ONE_B = ["0F0 0F1 0B0 0F2 0B1 0B2", "1F0 1B0 1F1 1B1 1F2 1B2"]
V_SHAPE = ["0F0 3F0 3B0 0B0", "1F0 2F0 2B0 1B0"]
HALVES = ["0F0 0F1 0I0 0W0 0I1 0W1", "1F0 1I0 1F1 1I1 1W0 1W1"]
MESSAGES = [
    "0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B0 0B0 0RECV_B1 0B1 0REDUCE_GRAD",
    "1RECV_F0 1F0 1B0 1SEND_B0 1RECV_F1 1F1 1B1 1SEND_B1 1REDUCE_GRAD",
]


def build(orders):
    return Schedule.from_orders([order.split() for order in orders])


def error_of(orders, old="", new="", rank=0):
    """What the table says when ``old`` is replaced by ``new`` once in the order of ``rank``."""
    assert f" {old} " in f" {orders[rank]} "
    broken = list(orders)
    broken[rank] = f" {orders[rank]} ".replace(f" {old} ", f" {new} ", 1)
    with pytest.raises(ScheduleError) as error:
        build(broken)
    return str(error.value)


@pytest.mark.parametrize("orders", [ONE_F_ONE_B, V_SHAPE, HALVES, MESSAGES])
def test_the_tables_below_are_legal_before_they_are_broken(orders):
    assert build(orders).num_ranks == 2


@pytest.mark.parametrize(
    ("orders", "rank", "old", "new", "said"),
    [
        (ONE_F_ONE_B, 0, "0F1", "", "rank 0: 0F1 is missing; every stage forwards the microbatches 0 to 2 "
            "(0F2 on rank 0 is the highest)"),
        (ONE_F_ONE_B, 1, "1F2", "1F9", "rank 0: 0F3 is missing; every stage forwards the microbatches 0 to 9 "
            "(1F9 on rank 1 is the highest)"),
        (ONE_F_ONE_B, 1, "1F2", "1F2000", "rank 1: 1F2000 asks for 2001 microbatches on 2 stages, "
            "but there are 6 forwards, not 4002"),
        (ONE_F_ONE_B, 1, "1B1", "", "rank 1: 1B1 is missing; 1F1 needs its backward, this or 1I1 and 1W1"),
        (ONE_F_ONE_B, 0, "0F1", "0F1 0F1", "rank 0: 0F1 is there twice; once is right"),
        (ONE_F_ONE_B, 0, "0B2", "0B2 0B1", "rank 0: 0B1 is there twice; once is right"),
        (ONE_F_ONE_B, 1, "1F1 1B1", "1B1 1F1", "rank 1: 1B1 comes before 1F1, which it needs"),
        (ONE_F_ONE_B, 1, "1F2", "5F2", "rank 1: 5F2 asks for 6 stages, but stage 2 has no action on any rank"),
        (ONE_F_ONE_B, 1, "1F2", "900F2", "rank 1: 900F2 asks for 901 stages, but there are 12 actions in all"),
        (ONE_F_ONE_B, 0, "0B2", "0B2 1F2",
            "rank 0: 1F2 is on the wrong rank: stage 1 is on rank 1, and a stage has one rank"),
        (ONE_F_ONE_B, 0, "0B1", "0I1", "rank 0: 0W1 is missing; 0I1 is the other half of that backward"),
        (HALVES, 0, "0I1", "", "rank 0: 0I1 is missing; 0W1 is the other half of that backward"),
        (HALVES, 1, "1W0", "", "rank 1: 1W0 is missing; 1I0 is the other half of that backward"),
        (HALVES, 1, "1I0", "1I0 1B0", "rank 1: 1B0 and 1I0: a backward is whole (B) or in halves (I and W), not both"),
        (HALVES, 1, "1I1 1W0 1W1", "1W1 1W0 1I1", "rank 1: 1W1 comes before 1I1, which it needs"),
        (V_SHAPE, 0, "0F0 3F0 3B0", "3F0 3B0 0F0",
            "the order deadlocks: rank 0 waits at 3F0 for 2F0, which rank 1 has behind 1F0; "
            "rank 1 waits at 1F0 for 0F0, which rank 0 has behind 3F0"),
        (V_SHAPE, 1, "1F0 2F0", "2F0 1F0", "rank 1: 2F0 comes before 1F0, which it waits for"),
    ],
)  # fmt: skip
def test_a_defect_is_named(orders, rank, old, new, said):
    assert error_of(orders, old, new, rank) == said


def test_a_deadlock_names_each_rank_of_the_circle_and_no_other():
    with pytest.raises(ScheduleError) as error:
        build(["0F0 0B0 0F1 0B1", "1F0 1F1 1B0 1B1", "2F0 2B0 2F1 2B1"])
    assert str(error.value) == (
        "the order deadlocks: rank 0 waits at 0B0 for 1B0, which rank 1 has behind 1F1; "
        "rank 1 waits at 1F1 for 0F1, which rank 0 has behind 0B0"
    )


def test_a_long_circle_is_cut_short():
    """Looped stages r and r + 9, of which the last rank wants the second one first."""
    orders = []
    for low, high in zip(range(9), range(9, 18), strict=True):
        forwards = [f"{low}F0", f"{high}F0", f"{high}F1", f"{low}F1"]
        orders.append([*forwards, f"{high}B1", f"{high}B0", f"{low}B1", f"{low}B0"])
    orders[8] = ["17F0", "8F0", "8F1", "17F1", "17B1", "17B0", "8B1", "8B0"]
    with pytest.raises(ScheduleError) as error:
        Schedule.from_orders(orders)
    text = str(error.value)
    assert text.startswith("the order deadlocks: rank 0 waits at 9F0 for 8F0, which rank 8 has behind 17F0; ")
    assert text.endswith("; ... 9 ranks in a circle")
    assert len(text) < 500


@pytest.mark.parametrize(
    ("rank", "old", "new", "said"),
    [
        (0, "0SEND_F1", "", "rank 1: 1RECV_F1 is not sent: there is no 0SEND_F1"),
        (1, "1RECV_F1", "", "rank 0: 0SEND_F1 is not received: rank 1 has no 1RECV_F1"),
        (0, "0RECV_B1", "", "rank 1: 1SEND_B1 is not received: rank 0 has no 0RECV_B1"),
        (0, "0SEND_F1", "0SEND_F1 0SEND_F1", "rank 0: 0SEND_F1 is there twice; once is right"),
        (0, "0SEND_F0 0F1 0SEND_F1", "0F1 0SEND_F1 0SEND_F0",
            "rank 1: 1RECV_F0 comes before 1RECV_F1, but rank 0 sends 0SEND_F1 before 0SEND_F0: "
            "messages between two ranks arrive in the order in which they are sent"),
        (0, "0F1 0SEND_F1", "0SEND_F1 0F1", "rank 0: 0SEND_F1 comes before 0F1, which makes it"),
        (1, "1RECV_F1 1F1", "1F1 1RECV_F1", "rank 1: 1RECV_F1 comes after 1F1, which needs it"),
        (0, "0RECV_B1 0B1", "0B1 0RECV_B1", "rank 0: 0RECV_B1 comes after 0B1, which needs it"),
        (1, "1F1", "1F1 1SEND_F1", "rank 1: 1SEND_F1 goes to no other rank"),
        (0, "0F1", "0RECV_F1 0F1", "rank 0: 0RECV_F1 comes from no other rank"),
        (0, "0B1 0REDUCE_GRAD", "0REDUCE_GRAD 0B1",
            "rank 0: 0REDUCE_GRAD comes before 0B1, the last gradient of its stage"),
        (0, "0REDUCE_GRAD", "0REDUCE_GRAD 0REDUCE_GRAD", "rank 0: 0REDUCE_GRAD is there twice; once is right"),
        (0, "0SEND_F0", "0RECV_B0 0SEND_F0", "rank 0: 0RECV_B0 is there twice; once is right"),
    ],
)  # fmt: skip
def test_a_defect_of_a_message_is_named(rank, old, new, said):
    assert error_of(MESSAGES, old, new, rank) == said


def test_a_message_without_both_ends_is_named_by_what_waits_for_it():
    orders = [order.replace("0SEND_F1 ", "").replace("1RECV_F1 ", "") for order in MESSAGES]
    with pytest.raises(ScheduleError) as error:
        build(orders)
    assert str(error.value) == (
        "rank 1: 1F1 waits for 0SEND_F1 and 1RECV_F1; where some messages are written out, all must be"
    )


def test_a_message_inside_a_rank_is_refused():
    with pytest.raises(ScheduleError, match=r"^rank 1: 1SEND_F0 goes to no other rank$"):
        build(["0F0 0SEND_F0 3RECV_F0 3F0 3B0 3SEND_B0 0RECV_B0 0B0",
               "1RECV_F0 1F0 1SEND_F0 2F0 2SEND_F0 2RECV_B0 2B0 1B0 1SEND_B0"])  # fmt: skip


def test_a_send_that_waits_for_its_own_answer_deadlocks():
    with pytest.raises(
        ScheduleError, match=r"^the order deadlocks: rank 0 waits at 0B0 for 1SEND_B0, which rank 1 has"
    ):
        build(["0F0 0SEND_F0 0F1 0RECV_B0 0B0 0SEND_F1 0RECV_B1 0B1",
               "1RECV_F0 1F0 1RECV_F1 1F1 1B0 1SEND_B0 1B1 1SEND_B1"])  # fmt: skip


def test_reductions_need_no_messages():
    assert build(["0F0 0B0 0REDUCE_GRAD", "1F0 1B0 1REDUCE_GRAD"]).num_actions == 6


def test_actions_of_sharded_parameters_are_let_through():
    assert build(["0UNSHARD 0F0 0B0 0RESHARD"]).num_actions == 4


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ("0F0 (0F1;0B1)OVERLAP_F_B 0B0", "rank 0: 0F1 cannot overlap with 0B1, which needs it"),
        ("0F0 1F0 (0F1;1F1)OVERLAP_F_B 1B0 0B0 1B1 0B1", "rank 0: 0F1 cannot overlap with 1F1, which needs it"),
    ],
)
def test_a_pair_of_which_one_needs_the_other_is_refused(order, said):
    assert build([order.replace("(", "").replace(";", " ").replace(")OVERLAP_F_B", "")]).num_ranks == 1
    with pytest.raises(ScheduleError) as error:
        build([order])
    assert str(error.value) == said


@pytest.mark.parametrize(
    ("overlap", "said"),
    [
        ([0, 0, 0, 1], "rank 0: 0B1 overlaps with nothing: it is the last action"),
        ([0, 1, 1, 0], "rank 0: 0F1 overlaps with exactly one other action, the next one of its rank"),
        ([1, 0, 1], "op, stage, microbatch and overlap must be equally long"),
    ],
)
def test_flags_that_make_no_pair_are_refused(overlap, said):
    columns = [np.array(column) for column in ([0, 0, 1, 1], [0] * 4, [0, 1, 0, 1], [0, 4])]
    with pytest.raises(ScheduleError) as error:
        Schedule(*columns, np.array(overlap, dtype=bool))
    assert str(error.value) == said


@pytest.mark.parametrize(
    ("op", "stage", "microbatch", "offsets", "said"),
    [
        ([], [], [], [0], "a schedule needs at least one rank with one action"),
        ([0, 1], [0, 0], [0, 0], [0, 3], "offsets must rise from 0 to the number of actions"),
        ([0, 1], [0, 0], [0, 0], [0, 2, 2], "rank 1 has no action; every rank runs at least one stage"),
        ([0, 1], [0, 0], [0], [0, 2], "op, stage, microbatch and overlap must be equally long"),
        ([0, 77], [0, 0], [0, 0], [0, 2], "rank 0: there is no action with op 77, stage 0 and microbatch 0"),
        ([0, 11], [0, 0], [0, 0], [0, 2], "rank 0: there is no action with op 11, stage 0 and microbatch 0"),
        ([0, 1], [0, -1], [0, 0], [0, 1, 2], "rank 1: there is no action with op 1, stage -1 and microbatch 0"),
        ([0, 1], [0, 0], [0, -1], [0, 2], "rank 0: there is no action with op 1, stage 0 and microbatch -1"),
        ([10], [0], [-1], [0, 1], "rank 0: 0F0 is missing; every stage forwards the microbatches 0 to 0"),
    ],
)
def test_arrays_that_are_no_table_are_refused(op, stage, microbatch, offsets, said):
    with pytest.raises(ScheduleError) as error:
        Schedule(*(np.array(column, dtype=int) for column in (op, stage, microbatch, offsets)))
    assert str(error.value).startswith(said)


def mutations(orders, chance):
    """The orders with one defect, and what it is; each of them makes any legal order illegal."""
    rank = chance.randrange(len(orders))
    i = chance.randrange(len(orders[rank]))
    action = orders[rank][i]
    yield "drop", [order[:i] + order[i + 1 :] if r == rank else order for r, order in enumerate(orders)]
    yield "double", [[*order, action] if r == rank else order for r, order in enumerate(orders)]
    beyond = action._replace(microbatch=action.microbatch + 99)
    yield "rename", [[beyond if a == action else a for a in order] for order in orders]
    if len(orders) > 1:
        to = (rank + 1) % len(orders)
        moved = [[a for a in order if a != action] for order in orders]
        moved[to].append(action)
        if any(a.stage == action.stage for a in moved[rank]):
            yield "move", moved
    forward = Action(action.stage, Op.F, action.microbatch)
    back = next(a for a in orders[rank] if a[::2] == forward[::2] and a.op in (Op.B, Op.I))
    swap = {forward: back, back: forward}
    yield "swap", [[swap.get(a, a) for a in order] for order in orders]


@settings(deadline=None, max_examples=200)
@given(schedules(pairs=False), st.randoms(use_true_random=False))
def test_any_legal_order_with_one_defect_is_refused_and_names_an_action(schedule, chance):
    for what, orders in mutations([list(order) for order in schedule.order], chance):
        with pytest.raises(ScheduleError, match=r"rank \d+.*\d[FBIW]\d|rank \d+ has no action") as error:
            Schedule.from_orders(orders)
        assert len(str(error.value)) < 600, what


def obviously_stuck(orders):
    """Whether ranks that take turns come to a halt, by the rules as they are written down."""
    orders, done = [list(order) for order in orders], set()
    last = max(action.stage for order in orders for action in order)
    while any(orders):
        before = len(done)
        for order in orders:
            while order:
                stage, op, microbatch, *_ = order[0]
                upstream = [(stage - 1, Op.F, microbatch)] if op == Op.F and stage else []
                if op in (Op.B, Op.I) and stage < last:
                    upstream = [(stage + 1, Op.B, microbatch), (stage + 1, Op.I, microbatch)]
                if upstream and not done & set(upstream):
                    break
                done.add((stage, op, microbatch))
                order.pop(0)
        if len(done) == before:
            return True
    return False


@settings(deadline=None, max_examples=300)
@given(schedules(pairs=False), st.randoms(use_true_random=False))
def test_a_shuffled_order_is_legal_exactly_when_it_obeys_the_rules(schedule, chance):
    orders = [list(order) for order in schedule.order]
    for order in orders:
        i, j = chance.randrange(len(order)), chance.randrange(len(order))
        order[i], order[j] = order[j], order[i]
    place = {action: i for order in orders for i, action in enumerate(order)}
    needs = {Op.B: (Op.F,), Op.I: (Op.F,), Op.W: (Op.I,), Op.F: ()}
    in_order = all(place[Action(a.stage, op, a.microbatch)] < i for a, i in place.items() for op in needs[a.op])
    try:
        Schedule.from_orders(orders)
        accepted = True
    except ScheduleError:
        accepted = False
    assert accepted == (in_order and not obviously_stuck(orders))
