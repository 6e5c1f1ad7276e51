from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipezoo.planner.devices.many_microbatches import step_and_peak
from pipezoo.schedules import ZOO
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.memory import peak_memory
from pipezoo.simulator.simulate import simulate

SIZES = [
    ("1f1b", 1),
    ("zb_h1", 1),
    ("gpipe", 1),
    ("interleaved_1f1b", 2),
    ("interleaved_1f1b", 3),
    ("zbv", 2),
    ("v_half", 2),
]


def both(name: str, v: int, p: int, m: int, cost: Cost) -> tuple[float, float]:
    def schedule_of(microbatches: int):
        return ZOO[name](p, microbatches, stages_per_rank=v)

    step, peak = step_and_peak(schedule_of, cost, p, m)
    played = schedule_of(m)
    assert peak.tolist() == pytest.approx(peak_memory(played, cost).tolist())
    return step, simulate(played, cost).step


@pytest.mark.parametrize(("name", "v"), SIZES)
@pytest.mark.parametrize(("p", "m"), [(1, 40), (2, 50), (3, 66), (4, 96), (8, 136)])
@pytest.mark.parametrize("last", [1.0, 1.4, 3.0])
def test_many_microbatches_take_what_the_simulator_says(name, v, p, m, last):
    stages = p * v
    uneven = [1.0] * (stages - 1) + [last]
    cost = Cost(F=uneven, I=uneven, W=uneven, p2p=0.07, activation_bytes=1.0, optimizer=0.5)
    step, played = both(name, v, p, m, cost)
    assert step == pytest.approx(played, rel=1e-9)


TIME = st.floats(0.1, 3.0)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)
@given(
    st.sampled_from(SIZES), st.integers(1, 5), st.integers(1, 24), TIME, TIME, TIME, TIME, TIME, st.floats(0.001, 0.5)
)
def test_so_they_do_for_other_costs(size, p, rounds, f, i, w, first, last, p2p):
    name, v = size
    stages = p * v
    ends = [1.0] * stages
    ends[0] *= first
    ends[-1] *= last
    cost = Cost(F=[f * end for end in ends], I=[i * end for end in ends], W=[w * end for end in ends], p2p=p2p)
    step, played = both(name, v, p, rounds * p, cost)
    assert step == pytest.approx(played, rel=0.005)
