from __future__ import annotations

import itertools
import random

import pytest

from pipezoo.schedule.schedule import Schedule
from pipezoo.schedules.eager_1f1b import eager_1f1b
from pipezoo.schedules.gpipe import gpipe
from pipezoo.schedules.interleaved_1f1b import interleaved_1f1b
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.schedules.v_half import v_half
from pipezoo.schedules.v_min import v_min
from pipezoo.schedules.zb_h1 import zb_h1
from pipezoo.schedules.zbv import zbv
from pipezoo.simulator.nearest_schedule import nearest


def distance(one, other):
    return nearest(one, [other]).distance


def split(order):
    """A rank's actions, full backwards as their two halves."""
    halves = ((w.replace("B", "I"), w.replace("B", "W")) if "B" in w else (w,) for w in map(str, order))
    return [half for pair in halves for half in pair]


def counted(one, other):
    """The distance, by looking at every pair."""
    pairs = crossed = 0
    for here, there in zip(one.order, other.order, strict=True):
        place = {item: at for at, item in enumerate(split(there))}
        for a, b in itertools.combinations(split(here), 2):
            pairs += 1
            crossed += place[a] > place[b]
    return crossed / pairs


def test_one_pair_of_six_halves_changes_places():
    here = Schedule.from_orders([["0F0", "0I0", "0F1", "0W0", "0I1", "0W1"]])
    there = Schedule.from_orders([["0F0", "0F1", "0I0", "0W0", "0I1", "0W1"]])

    found = nearest(here, [there])

    assert (found.crossed, found.pairs, found.distance) == (1, 15, 1 / 15)


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations([gpipe, one_f_one_b, eager_1f1b, zb_h1], 2)))
def test_the_distance_is_the_share_of_pairs_in_the_other_order(one, other):
    assert distance(one(3, 5), other(3, 5)) == pytest.approx(counted(one(3, 5), other(3, 5)))
    assert distance(other(3, 5), one(3, 5)) == distance(one(3, 5), other(3, 5))


def test_a_deeper_warm_up_is_near_and_gpipe_is_far():
    p, m = 4, 32
    pairs = p * 3 * m * (3 * m - 1) / 2
    before = sum((m - depth) * (m - depth + 1) for depth in range(1, p + 1))  # halves of B that 1F1B has before an F

    assert distance(gpipe(p, m), one_f_one_b(p, m)) == before / pairs  # 19.8 %
    assert distance(eager_1f1b(p, m), one_f_one_b(p, m)) < 0.02


def test_a_whole_backward_is_its_halves_in_a_row():
    whole = Schedule.from_orders([["0F0", "0B0", "0F1", "0B1"]])
    halves = Schedule.from_orders([["0F0", "0I0", "0W0", "0F1", "0I1", "0W1"]])

    assert distance(whole, halves) == 0.0
    assert nearest(whole, [halves]).divergences == []


def test_messages_do_not_count():
    plain = Schedule.from_orders([["0F0", "0B0"], ["1F0", "1B0"]])
    told = Schedule.from_orders([["0F0", "0SEND_F0", "0RECV_B0", "0B0"], ["1RECV_F0", "1F0", "1B0", "1SEND_B0"]])

    assert distance(plain, told) == 0.0


@pytest.mark.parametrize("name", ["zbv", "v_half", "v_min"])
def test_a_schedule_of_the_zoo_with_two_neighbours_exchanged_is_nearest_to_itself(name):
    zoo = {"zbv": zbv, "v_half": v_half, "v_min": v_min}
    rng = random.Random(name)
    changed = exchanged(zoo[name](4, 12), rng)

    found = nearest(changed, [function(4, 12) for function in zoo.values()])

    assert found.schedule.name == name
    assert (found.crossed, found.pairs) == (1, 4 * 72 * 71 / 2)
    (parting,) = found.divergences
    assert str(parting.here) == str(changed.order[parting.rank][parting.at])
    assert str(parting.there) == str(found.schedule.order[parting.rank][parting.at])


def exchanged(schedule, rng):
    """The schedule with two neighbouring actions of a rank exchanged, where that leaves it legal."""
    while True:
        orders = [list(map(str, order)) for order in schedule.order]
        order = rng.choice(orders)
        at = rng.randrange(len(order) - 1)
        order[at : at + 2] = order[at + 1], order[at]
        try:
            return Schedule.from_orders(orders, "changed")
        except ValueError:
            continue


def test_where_orders_part_is_named_rank_by_rank():
    found = nearest(one_f_one_b(2, 3), [gpipe(2, 3)])

    assert [(p.rank, p.at, str(p.here), str(p.there)) for p in found.divergences] == [
        (0, 2, "0B0", "0F2"),
        (1, 1, "1B0", "1F1"),
    ]


def test_only_the_same_stages_on_the_same_ranks_compare():
    assert nearest(zbv(2, 4), [interleaved_1f1b(2, 4), zbv(2, 5), one_f_one_b(4, 4)]) is None


def test_of_equally_near_ones_it_is_the_first():
    again = Schedule.from_orders(one_f_one_b(2, 3).order, "again")

    assert nearest(one_f_one_b(2, 3), [again, one_f_one_b(2, 3)]).schedule.name == "again"
