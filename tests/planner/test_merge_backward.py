from __future__ import annotations

import pytest

from pipezoo.costs.unit import unit
from pipezoo.planner.merge_backward import merge_backwards
from pipezoo.schedule.action import Op
from pipezoo.schedules.zb_h1 import zb_h1
from pipezoo.schedules.zbv import zbv
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.memory import peak_memory
from pipezoo.simulator.simulate import predict


def split_costs(num_stages, whole):
    return Cost.from_dict(
        {"stages": {"F": 1, "I": 1, "W": 1, "B": whole, "activation_bytes": 4, "freed_by_input_grad": 1}}, num_stages
    )


def test_where_a_whole_backward_is_no_cheaper_nothing_is_joined():
    schedule = zb_h1(4, 8)
    assert merge_backwards(schedule, unit(4)) is schedule


def test_on_one_rank_all_backwards_are_whole():
    joined = merge_backwards(zb_h1(1, 4), split_costs(1, 1.5))
    assert [str(action) for action in joined.order[0]] == ["0F0", "0B0", "0F1", "0B1", "0F2", "0B2", "0F3", "0B3"]


@pytest.mark.parametrize("schedule", [zb_h1(4, 16), zbv(4, 16)], ids=lambda s: s.name)
@pytest.mark.parametrize("whole", [1.2, 1.4, 1.6])
def test_a_mixture_is_faster_and_needs_no_more_memory(schedule, whole):
    cost = split_costs(schedule.num_stages, whole)

    joined = merge_backwards(schedule, cost)

    assert predict(joined, cost)["step_seconds"] < predict(schedule, cost)["step_seconds"]
    assert (peak_memory(joined, cost) <= peak_memory(schedule, cost)).all()
    assert (joined.op == Op.B).any()


def test_the_last_backwards_stay_split_where_gradients_are_waited_for():
    cost = split_costs(4, 1.6)
    joined = merge_backwards(zb_h1(4, 16), cost)
    whole = joined.microbatch[joined.op == Op.B]
    assert (joined.op == Op.I).any()
    assert whole.min() == 0
    assert whole.max() < joined.microbatch[joined.op == Op.I].max()
