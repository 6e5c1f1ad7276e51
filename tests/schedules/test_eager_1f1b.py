from __future__ import annotations

import pytest

from pipezoo.costs.unit import unit
from pipezoo.schedules.eager_1f1b import eager_1f1b
from pipezoo.schedules.one_f_one_b import one_f_one_b
from pipezoo.simulator.simulate import predict


@pytest.mark.parametrize(("p", "m"), [(1, 3), (2, 4), (4, 4), (4, 12), (8, 24)])
def test_ahead_by_one_it_is_1f1b(p, m):
    assert eager_1f1b(p, m, ahead=1) == one_f_one_b(p, m)


@pytest.mark.parametrize("p", [1, 2, 4, 8])
@pytest.mark.parametrize("rounds", [2, 3])
@pytest.mark.parametrize("ahead", [2, 3])
def test_bubble_and_memory(p, rounds, ahead):
    m = rounds * p

    prediction = predict(eager_1f1b(p, m, ahead=ahead), unit(p))

    assert prediction["makespan_seconds"] == 3 * (m + p - 1)
    assert prediction["peak_memory"] == [min(m, 1 + ahead * (p - 1 - rank)) for rank in range(p)]


@pytest.mark.parametrize("p", [2, 4, 8])
@pytest.mark.parametrize("p2p", [0.25, 0.5, 1.0, 1.5])
def test_a_hop_is_paid_once_each_way_where_1f1b_pays_it_again_and_again(p, p2p):
    m, cost = 3 * p, unit(p, p2p=p2p)
    once = 3 * (m + p - 1) + 2 * (p - 1) * p2p

    assert predict(eager_1f1b(p, m), cost)["makespan_seconds"] == once
    assert predict(one_f_one_b(p, m), cost)["makespan_seconds"] >= once + 2 * p2p * (m - p) / p


def test_three_ranks_as_drawn():
    assert [" ".join(map(str, order)) for order in eager_1f1b(3, 5).order] == [
        "0F0 0F1 0F2 0F3 0F4 0B0 0B1 0B2 0B3 0B4",
        "1F0 1F1 1F2 1B0 1F3 1B1 1F4 1B2 1B3 1B4",
        "2F0 2B0 2F1 2B1 2F2 2B2 2F3 2B3 2F4 2B4",
    ]
