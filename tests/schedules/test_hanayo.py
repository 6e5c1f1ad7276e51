from __future__ import annotations

import pytest

from pipezoo.costs.unit import unit
from pipezoo.schedules.hanayo import hanayo
from pipezoo.simulator.simulate import predict


def ones(schedule, v):
    return unit(schedule.num_stages, v, F=v, I=v, W=v)


def test_stages_lie_in_waves():
    assert hanayo(3, 3, 4).stage_to_rank == (0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0)


@pytest.mark.parametrize("p", range(1, 9))
def test_one_wave_of_as_many_microbatches_as_ranks_has_two_thirds_of_the_bubble_of_1f1b(p):
    schedule = hanayo(p, p)

    prediction = predict(schedule, ones(schedule, 2))

    assert prediction["makespan_seconds"] == 6 * p + 4 * (p - 1)  # 1F1B: 6p + 6(p-1)
    assert max(prediction["peak_memory"]) == p


@pytest.mark.parametrize("p", [4, 8])
def test_more_waves_have_a_smaller_bubble(p):
    one, two, three = (predict(s := hanayo(p, p, v), ones(s, v))["bubble"]["makespan"] for v in (2, 4, 6))
    assert one > two > three


@pytest.mark.parametrize("in_flight", [1, 2, 4, 7, 100])
def test_no_more_microbatches_are_under_way_than_allowed(in_flight):
    schedule = hanayo(4, 12, in_flight=in_flight)

    first = [str(action) for action in schedule.order[0] if action.stage == 0]

    under_way = most = 0
    for action in first:
        under_way += 1 if action.startswith("0F") else -1
        most = max(most, under_way)
    assert most <= in_flight
    assert max(predict(schedule, ones(schedule, 2))["peak_memory"]) <= in_flight


def test_an_odd_number_of_stages_per_rank_is_no_wave():
    with pytest.raises(ValueError, match=r"^stages_per_rank=3: hanayo lays whole waves, .*; valid: 4$"):
        hanayo(4, 8, 3)
