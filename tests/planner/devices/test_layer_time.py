# ruff: noqa: SIM300 - F, I and W are no constants
from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipezoo.planner.devices.layer_time import Shard
from pipezoo.planner.devices.transformer import Transformer
from pipezoo.topology.placement import Group
from tests.planner.devices.worlds import CLUSTER, DEVICE, SIZES

MODEL = Transformer(**SIZES)
ALONE, FOUR = Group(1, 1, 1, 0), Group(4, 1, 4, 0)
ENDLESS = replace(CLUSTER, device=replace(DEVICE, memory_bandwidth=1e30))  # bytes take no time


def test_without_bytes_and_sums_a_block_takes_its_flops():
    found = Shard(MODEL, ENDLESS, ALONE).block(rows=2)
    products = 2 * 1024 * sum(inner * outer for inner, outer, _ in MODEL.products) / 50e12
    scores = 4 * 1024 * 512 * 1024 / 2 / 50e12  # half of them are masked
    assert found.F == pytest.approx(products + scores)
    assert found.I == pytest.approx(products + 2.5 * scores)
    assert found.W == pytest.approx(products)


def test_a_head_takes_its_flops_three_times():
    found = Shard(MODEL, ENDLESS, FOUR).head(rows=2)
    assert (found.F, found.I, found.W) == pytest.approx((2 * 1024 * 1024 * 8192 / 4 / 50e12,) * 3)


def test_a_small_product_takes_what_its_bytes_take():
    slow = replace(CLUSTER, device=replace(DEVICE, memory_bandwidth=1e6))
    assert Shard(MODEL, slow, ALONE).block(1).W == pytest.approx(
        sum(2 * (512 * inner + inner * outer + 512 * outer) for inner, outer, _ in MODEL.products) / 1e6
    )


def test_recomputation_puts_a_forward_into_the_backward():
    shard = Shard(MODEL, CLUSTER, FOUR)
    plain, again = shard.block(2), shard.block(2, recompute=True)
    assert (again.F, again.W) == (plain.F, plain.W)
    assert again.I == pytest.approx(plain.I + plain.F)


def test_sums_over_shards_take_two_all_reduces_less_what_is_hidden():
    times = [Shard(MODEL, CLUSTER, FOUR, overlap=share).block(2).F for share in (0.0, 0.5, 1.0)]
    all_reduce = 2 * (2 * 1024 * 1024 * 3 / 4 / 100e9 + 2e-6)
    assert times[0] - times[2] == pytest.approx(2 * all_reduce)
    assert times[1] == pytest.approx((times[0] + times[2]) / 2)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 8), st.sampled_from([1, 2, 4, 8]), st.booleans())
def test_more_rows_take_longer_and_rows_of_a_larger_microbatch_no_longer_each(rows, tp, sequence_parallel):
    shard = Shard(MODEL, CLUSTER, Group(tp, 1, tp, 0), sequence_parallel)
    one, more = shard.block(rows), shard.block(rows + 1)
    for few, many in ((one.F, more.F), (one.I, more.I), (one.W, more.W)):
        assert few < many <= few / rows * (rows + 1) * (1 + 1e-9)
