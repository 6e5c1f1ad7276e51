from __future__ import annotations

import pytest

from pipezoo.profiling.p2p_benchmark import SIZES, Sample, fit, measure_p2p


def samples(*pairs):
    return [Sample(num_bytes, seconds * 0.9, seconds, seconds * 1.2) for num_bytes, seconds in pairs]


def test_a_line_is_found_again():
    p2p = fit(samples(*((size, 5e-5 + size / 2e9) for size in SIZES)))
    assert (p2p.latency, p2p.bandwidth) == pytest.approx((5e-5, 2e9))


def test_a_large_error_in_the_largest_message_does_not_move_the_latency_far():
    p2p = fit(samples(*((size, 5e-5 + size / 2e9) for size in SIZES[:-1]), (SIZES[-1], 5e-5 + SIZES[-1] / 1e9)))
    assert p2p.latency == pytest.approx(5e-5, rel=0.15)


def test_times_that_do_not_grow_are_all_latency():
    assert fit(samples((1000, 2e-3), (100_000, 1.9e-3), (1_000_000, 1.5e-3))).seconds(1e9) == pytest.approx(1.8e-3, 0.1)


def test_times_through_zero_have_no_latency():
    assert fit(samples((1_000, 1e-7), (1_000_000, 1e-3))).latency == 0.0


def test_two_processes_write_to_each_other(tmp_path):
    found = measure_p2p(tmp_path, "cpu", "fork", tmp_path / "log")

    assert [sample.num_bytes for sample in found] == list(SIZES)
    assert all(0 < sample.low <= sample.middle <= sample.high < 1 for sample in found)
    assert 0 <= fit(found).latency < 0.1
