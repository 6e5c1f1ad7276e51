from __future__ import annotations

from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipezoo.schedule.action import COMPUTE, MESSAGES, Op
from pipezoo.schedule.lowering import lower, receives_first, with_messages
from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules.dualpipev import dualpipev
from pipezoo.schedules.from_csv import from_csv
from pipezoo.schedules.interleaved_1f1b import interleaved_1f1b
from pipezoo.schedules.zbv import zbv
from tests.support import zoo
from tests.support.plain_simulation import schedules

FLOWS = {Op.F: -1, Op.B: 1, Op.I: 1}  # where a computation's input comes from
ENDS = {Op.SEND_F: (0, 1), Op.RECV_F: (-1, 0), Op.SEND_B: (0, -1), Op.RECV_B: (1, 0)}


def message(action):
    """What a send and its receive have in common: (from stage, to stage, microbatch)."""
    origin, to = ENDS[action.op]
    if action.peer is not None:
        ends = action.stage, action.peer
        return (*(ends if action.op in (Op.SEND_F, Op.SEND_B) else ends[::-1]), action.microbatch)
    return action.stage + origin, action.stage + to, action.microbatch


def left_on_queues(lists):
    """What is never done where each rank has one queue of messages, as on a GPU: one goes when it heads both queues."""
    todo, queues, done = [deque(actions) for actions in lists], [deque() for _ in lists], set()
    owner = {action.stage: rank for rank, actions in enumerate(lists) for action in actions}

    far = {}  # what a computation needs beside what its neighbour sends
    for action in (action for actions in lists for action in actions if action.peer is not None):
        if action.op in (Op.RECV_F, Op.RECV_B):
            far.setdefault((action.stage, action.op == Op.RECV_F, action.microbatch), []).append(message(action))

    def may_go(action):
        needs = far.get((action.stage, action.op == Op.F, action.microbatch), []) if action.op in FLOWS else []
        if any((*needed, "arrived") not in done for needed in needs):
            return False
        nearest_schedule = action.stage + FLOWS.get(action.op, 0)
        if action.op not in FLOWS or nearest_schedule not in owner:
            return True
        if owner[nearest_schedule] == owner[action.stage]:
            return (nearest_schedule, FLOWS[action.op], action.microbatch) in done
        return (nearest_schedule, action.stage, action.microbatch, "arrived") in done

    before = None
    while before != (before := (sum(map(len, todo)), sum(map(len, queues)))):
        for actions, queue in zip(todo, queues, strict=True):
            while actions and may_go(actions[0]):
                action = actions.popleft()
                if action.op in ENDS:
                    queue.append(message(action))
                else:
                    done.add((action.stage, FLOWS.get(action.op), action.microbatch))
        heads = Counter(queue[0] for queue in queues if queue)
        for queue in queues:
            if queue and heads[queue[0]] == 2:
                done.add((*queue.popleft(), "arrived"))
    return [str(action) for actions in todo for action in actions] + [item for queue in queues for item in queue]


def computations(order):
    return [part for action in order for part in action.parts or (action,) if part.op in COMPUTE]


def check_lowered(schedule, skips=()):
    lists = lower(schedule, skips=skips)
    assert [computations(actions) for actions in lists] == [computations(order) for order in schedule.order]
    between = {}
    for rank, actions in enumerate(lists):
        for action in actions:
            if action.op in ENDS:
                origin, to, microbatch = message(action)
                way = schedule.stage_to_rank[origin], schedule.stage_to_rank[to]
                side = "sent" if rank == way[0] and action.op in (Op.SEND_F, Op.SEND_B) else "received"
                between.setdefault(way, {"sent": [], "received": []})[side].append((origin, to, microbatch))
    assert all(ends["sent"] == ends["received"] for ends in between.values())
    hops = [*zip(range(schedule.num_stages), range(1, schedule.num_stages), strict=False), *skips]
    crossings = sum(schedule.stage_to_rank[a] != schedule.stage_to_rank[b] for a, b in hops)
    assert sum(len(ends["sent"]) for ends in between.values()) == 2 * crossings * schedule.num_microbatches
    assert left_on_queues(lists) == []
    for stage in range(schedule.num_stages):
        actions = lists[schedule.stage_to_rank[stage]]
        ops = [action.op for action in actions if action.stage == stage]
        assert ops.count(Op.REDUCE_GRAD) == 1
        assert ops[-1] == Op.REDUCE_GRAD


@settings(deadline=None, max_examples=150)
@given(schedules())
def test_any_legal_order_is_lowered_to_messages_that_meet_and_never_wait_in_a_circle(schedule):
    check_lowered(schedule)


@pytest.mark.parametrize("name", zoo.GENERATED)
@pytest.mark.parametrize(("num_ranks", "num_microbatches"), [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10), (4, 16)])
def test_every_schedule_of_the_zoo_is(name, num_ranks, num_microbatches):
    check_lowered(zoo.function(name)(num_ranks, num_microbatches))


@settings(deadline=None, max_examples=60)
@given(schedules(), st.randoms(use_true_random=False))
def test_any_legal_order_stays_one_whatever_skips_there_are(schedule, chance):
    far = [(a, b) for a in range(schedule.num_stages) for b in range(a + 2, schedule.num_stages)]
    check_lowered(schedule, chance.sample(far, min(3, len(far))))


@pytest.mark.parametrize("name", zoo.GENERATED)
def test_skips_are_lowered_on_every_schedule_of_the_zoo(name):
    schedule = zoo.function(name)(3, 6)
    if schedule.num_stages > 2:
        check_lowered(schedule, [(0, schedule.num_stages - 1), (0, 2)][: schedule.num_stages - 2])


def test_a_skip_goes_right_behind_what_makes_it():
    schedule = Schedule.from_orders([["0F0", "0B0"], ["1F0", "1B0"], ["2F0", "2B0"]])
    assert [" ".join(map(str, actions)) for actions in lower(schedule, skips=[(0, 2)])] == [
        "0F0 0SEND_F0 0SEND_F0to2 0RECV_B0from2 0RECV_B0 0B0 0REDUCE_GRAD",
        "1RECV_F0 1F0 1SEND_F0 1RECV_B0 1B0 1SEND_B0 1REDUCE_GRAD",
        "2RECV_F0from0 2RECV_F0 2F0 2B0 2SEND_B0 2SEND_B0to0 2REDUCE_GRAD",
    ]


@pytest.mark.parametrize("name", zoo.FILES)
def test_every_order_kept_as_a_file_is(name):
    check_lowered(from_csv(zoo.file(name)))


def test_two_ranks_as_drawn():
    schedule = Schedule.from_orders([["0F0", "0F1", "0B0", "0B1"], ["1F0", "1B0", "1F1", "1B1"]])
    assert [" ".join(map(str, actions)) for actions in lower(schedule)] == [
        "0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B0 0B0 0RECV_B1 0B1 0REDUCE_GRAD",
        "1RECV_F0 1RECV_F1 1F0 1B0 1SEND_B0 1F1 1B1 1SEND_B1 1REDUCE_GRAD",
    ]


def test_receives_can_all_be_posted_before_anything_runs():
    schedule = Schedule.from_orders([["0F0", "0F1", "0B0", "0B1"], ["1F0", "1B0", "1F1", "1B1"]])
    assert [" ".join(map(str, receives_first(actions))) for actions in lower(schedule)] == [
        "0RECV_B0 0RECV_B1 0F0 0SEND_F0 0F1 0SEND_F1 0B0 0B1 0REDUCE_GRAD",
        "1RECV_F0 1RECV_F1 1F0 1B0 1SEND_B0 1F1 1B1 1SEND_B1 1REDUCE_GRAD",
    ]


@pytest.mark.parametrize("schedule", [zbv(3, 7), interleaved_1f1b(4, 8), dualpipev(2, 9)], ids=lambda s: s.name)
def test_receives_that_are_posted_first_still_meet_their_sends(schedule):
    Schedule.from_orders([receives_first(actions) for actions in lower(schedule)])  # proves every message


def test_messages_that_are_written_out_keep_their_places():
    schedule = from_csv(zoo.file("early_receives"))
    for actions, order in zip(lower(schedule), schedule.order, strict=True):
        assert actions[:-1] == order
        assert actions[-1].op == Op.REDUCE_GRAD


def test_a_reduction_that_is_written_out_stays_and_is_not_doubled():
    orders = ["0F0 0SEND_F0 0RECV_B0 0B0 0REDUCE_GRAD", "1RECV_F0 1F0 1B0 1REDUCE_GRAD 1SEND_B0"]
    schedule = Schedule.from_orders([order.split() for order in orders])
    assert [" ".join(map(str, actions)) for actions in lower(schedule)] == orders


def test_a_pair_is_two_actions_so_that_a_message_can_go_between():
    schedule = Schedule.from_orders(
        [["0F0", "0F1", "(0F2;0B0)OVERLAP_F_B", "0B1", "0B2"], ["1F0", "1B0", "1F1", "1B1", "1F2", "1B2"]]
    )
    texts = [str(action) for action in lower(schedule)[0]]
    assert texts.index("0F2") < texts.index("0SEND_F2") < texts.index("0B0")


@settings(deadline=None, max_examples=100)
@given(schedules(), st.integers(1, 3), st.randoms(use_true_random=False))
def test_stages_may_be_put_on_other_ranks(schedule, num_ranks, chance):
    """All in one process is the case of one rank; the merged order is legal, because it is a Schedule again."""
    placed = [chance.randrange(num_ranks) for _ in range(schedule.num_stages)]
    placed = tuple(sorted(set(placed)).index(rank) for rank in placed)
    merged = with_messages(schedule, placed)
    assert merged.stage_to_rank == placed
    assert merged.num_actions - schedule.num_actions >= schedule.num_stages
    assert left_on_queues(list(merged.order)) == []


@pytest.mark.parametrize("name", [*zoo.FILES, *zoo.GENERATED])
def test_one_process_runs_every_schedule_without_a_message(name):
    schedule = from_csv(zoo.file(name)) if name in zoo.FILES else zoo.function(name)(3, 6)
    (actions,) = lower(schedule, (0,) * schedule.num_stages)
    assert not any(action.op in MESSAGES for action in actions)
    assert Counter(action for action in actions if action.op in COMPUTE) == Counter(
        action for order in schedule.order for action in computations(order)
    )
    for rank, order in enumerate(schedule.order):
        mine = schedule.stages_of(rank)
        assert [a for a in actions if a.stage in mine and a.op in COMPUTE] == computations(order)


def test_the_queues_of_this_test_notice_two_ranks_that_each_send_first():
    """Legal where messages are buffered, but not on a GPU: no list of ours may look like this."""
    orders = [
        "0F0 0SEND_F0 0F1 0SEND_F1 0RECV_B0 0B0 0RECV_B1 0B1",
        "1RECV_F0 1F0 1B0 1SEND_B0 1RECV_F1 1F1 1B1 1SEND_B1",
    ]
    schedule = Schedule.from_orders([order.split() for order in orders])
    assert left_on_queues(list(schedule.order)) != []
    check_lowered(schedule.compute_only())
