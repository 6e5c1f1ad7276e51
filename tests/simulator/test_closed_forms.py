"""Every closed form that is known of a schedule, simulated: makespan, both bubbles, peak memory.

p ranks, m microbatches, v stages per rank. Costs are 1 for each F, I and W of a stage, so that times are whole numbers
and equality is exact; a rank's forward then takes v.
"""

from __future__ import annotations

import pytest

from pipezoo.costs.unit import unit
from pipezoo.schedules.dualpipev import dualpipev
from pipezoo.schedules.gpipe import gpipe
from pipezoo.schedules.interleaved_1f1b import interleaved_1f1b
from pipezoo.schedules.interleaved_zero_bubble import interleaved_zero_bubble
from pipezoo.schedules.looped_bfs import looped_bfs
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.schedules.zb_h1 import zb_h1
from pipezoo.schedules.zbv import zbv
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.memory import peak_memory
from pipezoo.simulator.simulate import predict, simulate

RANKS = [1, 2, 3, 4, 8]
ROUNDS = [1, 2, 3, 5]  # microbatches are this many times the ranks


def ones(schedule, v=1, freed_by_input_grad=0.0):
    """Each F, I and W of a stage takes 1; memory counts in rank-microbatches."""
    return unit(schedule.num_stages, v, F=v, I=v, W=v, freed_by_input_grad=freed_by_input_grad)


def check(schedule, v, makespan):
    """The makespan, and the makespan bubble that follows from it."""
    p, m = schedule.num_ranks, schedule.num_microbatches
    timeline = simulate(schedule, ones(schedule, v))
    assert timeline.makespan == makespan
    assert timeline.bubble == pytest.approx(1 - 3 * m * v / makespan, abs=1e-12)
    assert timeline.busy().tolist() == [3 * m * v] * p
    return timeline.bubbles()


def peak(schedule, v=1, freed_by_input_grad=0.0):
    return max(peak_memory(schedule, ones(schedule, v, freed_by_input_grad)))


@pytest.mark.parametrize("p", RANKS)
@pytest.mark.parametrize("rounds", ROUNDS)
class TestOneStagePerRank:
    def test_gpipe(self, p, rounds):
        m = rounds * p
        schedule = gpipe(p, m)

        bubble = check(schedule, 1, makespan=3 * (m + p - 1))
        assert bubble["makespan"] == pytest.approx((p - 1) / (m + p - 1), abs=1e-12)
        assert peak(schedule) == m

    def test_1f1b(self, p, rounds):
        m = rounds * p
        schedule = one_f_one_b(p, m)

        bubble = check(schedule, 1, makespan=3 * (m + p - 1))
        assert bubble["makespan"] == pytest.approx((p - 1) / (m + p - 1), abs=1e-12)
        assert peak_memory(schedule, ones(schedule)).tolist() == list(range(p, 0, -1))

    @pytest.mark.parametrize("freed_by_input_grad", [0.0, 0.5, 1.0])
    def test_zb_h1(self, p, rounds, freed_by_input_grad):
        m = rounds * p
        schedule = zb_h1(p, m)

        bubble = check(schedule, 1, makespan=3 * m + p - 1)
        assert bubble["makespan"] == pytest.approx((p - 1) / (3 * m + p - 1), abs=1e-12)
        assert peak(schedule, 1, freed_by_input_grad) == p

    def test_the_bubble_time_in_any_costs(self, p, rounds):
        m, F, I, W = rounds * p, 7, 5, 3
        cost = unit(p, F=F, I=I, W=W)

        for schedule, bubble_time in (
            (gpipe(p, m), (p - 1) * (F + I + W)),
            (one_f_one_b(p, m), (p - 1) * (F + I + W)),
            (zb_h1(p, m), (p - 1) * (F + I - W)),
        ):
            assert simulate(schedule, cost).makespan == m * (F + I + W) + bubble_time


@pytest.mark.parametrize("p", RANKS)
@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("v", [2, 3, 4])
class TestStagesInALoop:
    def test_interleaved_1f1b(self, p, rounds, v):
        m = rounds * p
        schedule = interleaved_1f1b(p, m, v)

        bubble = check(schedule, v, makespan=3 * (m * v + p - 1))
        assert bubble["makespan"] == pytest.approx((p - 1) / (m * v + p - 1), abs=1e-12)
        most = min(m * v, 2 * (p - 1) + (v - 1) * p + 1)  # torch's order; p + (p-1)/v is that of another paper
        assert peak(schedule, v) == pytest.approx(most / v)

    def test_looped_bfs(self, p, rounds, v):
        m = rounds * p
        schedule = looped_bfs(p, m, v)

        bubble = check(schedule, v, makespan=3 * (m * v + p - 1))
        assert bubble["makespan"] == pytest.approx((p - 1) / (m * v + p - 1), abs=1e-12)
        assert peak(schedule, v) == pytest.approx(m)

    def test_interleaved_zero_bubble(self, p, rounds, v):
        m = rounds * p
        schedule = interleaved_zero_bubble(p, m, v)

        bubble = check(schedule, v, makespan=3 * m * v + p - 1)
        assert bubble["makespan"] == pytest.approx((p - 1) / (3 * m * v + p - 1), abs=1e-12)
        assert peak(schedule, v) == pytest.approx(p)


@pytest.mark.parametrize("p", RANKS)
@pytest.mark.parametrize("rounds", [2, 3, 5])
class TestStagesInAV:
    def test_zbv(self, p, rounds):
        m = rounds * p
        schedule = zbv(p, m)

        bubble = check(schedule, 2, makespan=6 * m + p - 1)
        assert bubble["makespan"] == pytest.approx((p - 1) / (6 * m + p - 1), abs=1e-12)
        assert bubble["span"] == 0
        assert peak(schedule, 2) == p
        assert predict(schedule, ones(schedule, 2))["gap"] == pytest.approx(0, abs=1e-12)

    def test_dualpipev(self, p, rounds):
        m = rounds * p
        schedule = dualpipev(p, m)

        bubble = check(schedule, 2, makespan=6 * m + p - 1)
        assert bubble["makespan"] == pytest.approx((p - 1) / (6 * m + p - 1), abs=1e-12)
        assert peak(schedule, 2) == p + 0.5

    @pytest.mark.parametrize(("F", "I", "W"), [(1, 1, 1), (3, 3, 1), (4, 4, 2)])
    def test_dualpipev_where_an_overlapped_pair_takes_as_long_as_its_backward(self, p, rounds, F, I, W):
        """DualPipe's (PP/2-1)(F&B+B-3W), with PP the 2p stages, B = I + W, and the times of one stage."""
        m = rounds * p
        schedule = dualpipev(p, m)
        cost = Cost.from_dict({"stages": {"F": F, "I": I, "W": W}, "overlap_gain": 1.0}, 2 * p)

        timeline = simulate(schedule, cost)

        pair = max(F, I + W)
        assert timeline.makespan - timeline.busy()[-1] == (p - 1) * (pair + I - 2 * W)


# Zero Bubble Pipeline Parallelism, arXiv:2401.10241, tables 5 and 9; times in ms; span bubbles.
PUBLISHED = [
    # p, m, TF, TB, TW, Tc, 1F1B, ZB-H1
    (8, 24, 18.522, 18.086, 9.337, 0.601, 0.2431, 0.1585),
    (8, 64, 18.546, 18.097, 9.321, 0.762, 0.1240, 0.0674),
    (8, 24, 29.718, 29.444, 19.927, 0.527, 0.2347, 0.1323),
    (8, 32, 29.802, 29.428, 19.530, 0.577, 0.1898, 0.1045),
    (16, 64, 11.307, 11.254, 8.101, 0.379, 0.2082, 0.1088),
    (32, 96, 10.419, 10.207, 7.715, 0.408, 0.2646, 0.1421),
]
BOUND_OF_ONE_STAGE = [0.1083, 0.0439, 0.1003, 0.0778, 0.0820, 0.1098]  # makespan bubble, met by ZB-2p


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"p{row[0]}-m{row[1]}-{row[2]}")
def test_the_published_span_bubbles_to_four_decimals(row):
    p, m, F, I, W, p2p, of_1f1b, of_zb_h1 = row
    cost = unit(p, F=F, I=I, W=W, p2p=p2p)

    assert round(simulate(one_f_one_b(p, m), cost).span_bubble, 4) == of_1f1b
    assert round(simulate(zb_h1(p, m), cost).span_bubble, 4) == of_zb_h1


@pytest.mark.parametrize(("row", "expected"), list(zip(PUBLISHED, BOUND_OF_ONE_STAGE, strict=True)))
def test_the_published_bounds_to_four_decimals(row, expected):
    p, m, F, I, W, p2p, *_ = row

    bound = predict(one_f_one_b(p, m), unit(p, F=F, I=I, W=W, p2p=p2p))["lower_bound"]

    assert round(bound["bubble"], 4) == expected
    first_input = (p - 1) * (F + p2p)
    assert bound["bubble"] == pytest.approx(first_input / (first_input + m * (F + I + W)), rel=1e-12)


def test_uneven_stages_wait_for_the_slowest():
    stages = [{"F": 1, "I": 1, "W": 1}, {"F": 3, "I": 3, "W": 3}, {"F": 1, "I": 1, "W": 1}, {"F": 1, "I": 1, "W": 1}]
    cost = Cost.from_dict({"stages": stages})

    makespan = simulate(one_f_one_b(4, 16), cost).makespan

    assert makespan == 1 + 16 * 9 + 2  # stage 1 never pauses once it began; stage 0 ends with its last backward
