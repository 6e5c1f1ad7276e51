from __future__ import annotations

from dataclasses import replace

import pytest

from pipezoo.errors import ArgumentError
from pipezoo.planner.devices.candidate import Excluded, candidates
from pipezoo.planner.devices.evaluate import Job
from pipezoo.planner.devices.search import make_device_plans
from tests.planner.devices.worlds import CLUSTER, options


def played_all(asked):
    found = []
    for candidate in candidates(asked, CLUSTER.gpus_per_node, Excluded()):
        try:
            found.append(Job(candidate, asked, CLUSTER).play())
        except ValueError:  # the schedule has no such size
            continue
    return found


@pytest.mark.parametrize("changed", [{}, {"memory": "1GB"}, {"global_batch": 64, "rows": (1, 2)}, {"dp_overlap": 1.0}])
def test_what_is_found_is_what_playing_everything_finds(changed):
    asked = options(**changed)
    limit = asked.limit(CLUSTER.device.memory)
    fitting = [outcome for outcome in played_all(asked) if outcome.memory.total <= limit]
    best = {}
    for outcome in fitting:
        grid = outcome.candidate.grid
        size = (grid.pp, grid.dp, grid.tp)
        best[size] = min(best.get(size, outcome.step), outcome.step)
    plans = make_device_plans(asked, CLUSTER)
    assert [outcome.step for outcome in plans.ranked[: asked.top]] == sorted(best.values())[: asked.top]
    assert plans.num_played < len(fitting)
    assert all(outcome.memory.total <= limit for outcome in plans.ranked)


def test_no_step_is_shorter_than_its_bound_or_its_work():
    asked = options(rows=(1,), tp=(2,), dp_with=("fsdp",), orders=(("pp", "dp", "tp"),), recompute=("none",))
    for candidate in candidates(asked, CLUSTER.gpus_per_node, Excluded()):
        job = Job(candidate, asked, CLUSTER)
        try:
            outcome = job.play()
        except ValueError:
            continue
        assert outcome.step >= job.bound * (1 - 1e-9)
        assert 0 <= outcome.bubble < 1
        assert outcome.memory.total >= job.least_memory().total


def test_more_memory_is_never_slower():
    steps = [make_device_plans(options(memory=f"{size}MB"), CLUSTER).best.step for size in (350, 400, 500, 700, 8000)]
    assert steps == sorted(steps, reverse=True)
    assert steps[0] > steps[-1]


@pytest.mark.parametrize(
    "smaller",
    [
        {"schedules": ("1f1b",)},
        {"rows": (2,)},
        {"tp": (4,)},
        {"orders": (("dp", "pp", "tp"),)},
        {"recompute": ("full",)},
    ],
)
def test_a_plan_is_never_worse_than_that_of_a_smaller_search(smaller):
    assert make_device_plans(options(), CLUSTER).best.step <= make_device_plans(options(**smaller), CLUSTER).best.step


def test_figures_follow_from_the_step():
    plans = make_device_plans(options(), CLUSTER)
    best = plans.best
    assert plans.tokens_per_second(best) == pytest.approx(32 * 512 / best.step)
    assert plans.flops(best) == pytest.approx(plans.options.model.step_flops(32) / best.step / 16)
    assert plans.mfu(best) == pytest.approx(plans.flops(best) / 100e12)
    assert plans.mfu(best) < CLUSTER.device.efficiency


def test_a_model_that_fits_nowhere_names_the_term_and_what_would_do():
    asked = options(memory="100MB")
    with pytest.raises(ArgumentError) as error:
        make_device_plans(asked, CLUSTER)
    text = str(error.value)
    assert text.startswith("memory=100MB: fits nowhere; pp=4 dp=1 tp=4 needs least, ")
    assert " of it optimizer; valid: plan.memory=1GB" in text or " of it gradients; valid: plan.memory=1GB" in text
    assert make_device_plans(options(memory="1GB"), CLUSTER).ranked


def test_the_devices_that_would_do_do():
    asked = options(devices=1, memory="1.5GB", global_batch=512)
    with pytest.raises(ArgumentError, match=r"valid: plan\.memory=3GB, plan\.devices=(\d+)$") as error:
        make_device_plans(asked, CLUSTER)
    devices = int(str(error.value).rpartition("=")[2])
    assert make_device_plans(replace(asked, devices=devices), CLUSTER).ranked
    assert make_device_plans(replace(asked, memory="3GB"), CLUSTER).ranked


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"global_batch": 7, "pp": (1,), "tp": (1,)},
            "global_batch=7: global_batch=7 is not divisible by dp=16 x 1 rows",
        ),
        ({"tp": (3,)}, "transformer.heads=16: 16 heads, 4 of keys and values, ffn 4096: not divisible by tp=3"),
        ({"pp": (3,)}, "devices=16: 16 devices are not divisible by pp=3 x tp=1"),
        ({"pp": (16,), "tp": (1,)}, "transformer.layers=8: 8 layers on 16 x 1 stages are not even"),
        ({"pp": (2,), "schedules": ("dualpipev",), "stages_per_rank": (1,)}, "schedules="),
    ],
)
def test_where_nothing_goes_up_the_key_at_fault_is_named(changed, message):
    with pytest.raises(ArgumentError) as error:
        make_device_plans(options(**changed), CLUSTER)
    assert str(error.value).startswith(message)


def test_where_no_grid_fits_every_reason_is_given_and_the_nearest_devices_that_do():
    with pytest.raises(ArgumentError) as error:
        make_device_plans(options(devices=11), CLUSTER)
    assert str(error.value) == (
        "devices=11: no grid of 11 processes fits, for instance: global_batch=32 is not divisible by dp=11 x 1 rows; "
        "11 devices are not divisible by pp=1 x tp=2; valid: 10, 16"
    )
    for devices in (10, 16):
        assert make_device_plans(options(devices=devices), CLUSTER).ranked


def test_no_more_devices_are_proposed_than_the_topology_has():
    with pytest.raises(ArgumentError, match=r"valid: 10$"):
        make_device_plans(options(devices=11), replace(CLUSTER, nodes=3))


def test_a_list_that_no_number_of_devices_suits_is_the_key():
    with pytest.raises(ArgumentError, match=r"^dp=\(3,\): no grid of 16 processes fits"):
        make_device_plans(options(dp=(3,)), CLUSTER)


def test_a_topology_without_devices_is_refused():
    with pytest.raises(ArgumentError, match="a plan needs flops, memory"):
        make_device_plans(options(), replace(CLUSTER, device=None))
    with pytest.raises(ArgumentError, match=r"16 processes need more than 3 x 4 = 12 GPUs; valid: >= 4"):
        make_device_plans(options(), replace(CLUSTER, nodes=3))
