from __future__ import annotations

import pytest

from pipezoo.costs.unit import unit
from pipezoo.schedules.zb_h2 import zb_h2
from pipezoo.simulator.simulate import predict, simulate


def test_three_ranks_as_drawn():
    assert [" ".join(map(str, order)) for order in zb_h2(3, 6).order] == [
        "0F0 0F1 0F2 0F3 0F4 0I0 0W0 0F5 0I1 0W1 0I2 0W2 0I3 0W3 0I4 0W4 0I5 0W5",
        "1F0 1F1 1F2 1I0 1F3 1I1 1F4 1I2 1W0 1F5 1I3 1W1 1I4 1W2 1I5 1W3 1W4 1W5",
        "2F0 2I0 2F1 2I1 2F2 2I2 2F3 2I3 2F4 2I4 2W0 2F5 2I5 2W1 2W2 2W3 2W4 2W5",
    ]


@pytest.mark.parametrize("p", range(1, 9))
@pytest.mark.parametrize("rounds", [2, 3, 5])
def test_no_rank_waits_within_its_own_span_at_equal_costs(p, rounds):
    m = rounds * p

    prediction = predict(zb_h2(p, m), unit(p))

    assert prediction["bubble"]["span"] == 0
    assert prediction["makespan_seconds"] == 3 * m + p - 1
    assert prediction["gap"] == pytest.approx(0, abs=1e-12)
    assert prediction["peak_memory"] == [2 * p - 1] * p


@pytest.mark.parametrize(("F", "I", "W"), [(7, 5, 3), (18, 18, 9), (4, 4, 3)])
@pytest.mark.parametrize("p", [2, 4, 8])
def test_the_span_bubble_in_any_costs_where_W_is_the_cheapest(p, F, I, W):
    m = 6 * p

    span = simulate(zb_h2(p, m), unit(p, F=F, I=I, W=W)).own_span().max()

    assert span == m * (F + I + W) + (p - 1) * (F + I - 2 * W)


# Zero Bubble Pipeline Parallelism, arXiv:2401.10241, tables 5 and 9; times in ms
@pytest.mark.parametrize(
    ("p", "m", "F", "I", "W", "p2p", "published"),
    [
        (8, 24, 18.522, 18.086, 9.337, 0.601, 0.1083),
        (8, 64, 18.546, 18.097, 9.321, 0.762, 0.0444),
        (8, 24, 29.718, 29.444, 19.927, 0.527, 0.0698),
        (8, 32, 29.802, 29.428, 19.530, 0.577, 0.0559),
        (16, 64, 11.307, 11.254, 8.101, 0.379, 0.0516),
        (32, 96, 10.419, 10.207, 7.715, 0.408, 0.0641),
    ],
)
def test_the_published_span_bubbles_to_four_decimals(p, m, F, I, W, p2p, published):
    assert round(simulate(zb_h2(p, m), unit(p, F=F, I=I, W=W, p2p=p2p)).span_bubble, 4) == published
