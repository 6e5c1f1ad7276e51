from __future__ import annotations

import pytest

import pipezoo as pz

COST = pz.Cost(F=1e-3, I=1e-3, W=1e-3, activation_bytes=3e6)


def test_the_best_is_first_and_fits_into_memory():
    plans = pz.plan(ranks=4, microbatches=16, cost=COST, memory="12MB", search=False)

    assert plans.best is plans[0]
    assert plans.best.peak <= 12e6
    assert plans.best.step == min(plan.step for plan in plans.ranked)
    assert plans.best.timeline.step == pytest.approx(plans.best.step)


def test_one_cost_is_that_of_a_ranks_share_whatever_the_stages_on_it():
    plans = pz.plan(ranks=2, microbatches=4, cost=pz.Cost(F=2, B=4), search=False)

    steps = {plan.name: plan.step for plan in plans.ranked}
    assert steps["1f1b"] == 30
    assert steps["grouped_interleaved_1f1b"] == 27


def test_a_cost_of_four_stages_is_of_four_stages_alone():
    plans = pz.plan(ranks=2, microbatches=4, cost=pz.Cost(F=[1, 1, 1, 2], B=2), search=False)

    assert {plan.schedule.num_stages for plan in plans.ranked} == {4}
    assert plans.notes == ["left out: 1 stages on each rank (cost: is of 4 stages, not of 2)"]


def test_the_table_has_a_row_a_plan():
    cost = pz.Cost(F=1, B=2, activation_bytes=1)
    plans = pz.plan(ranks=2, microbatches=4, cost=cost, schedules=["1f1b", "gpipe"], search=False)

    assert repr(plans) == "Plans(2 that fit; best '1f1b', step 15 s)"
    lines = plans.table(1).splitlines()
    assert lines[0].split() == ["schedule", "v", "m", "step", "makespan", "span", "memory", "gap"]
    assert lines[1].split()[:5] == ["1", "1f1b", "1", "4", "15"]
    assert plans._repr_html_().startswith("<table>")


def test_what_cannot_be_planned_is_a_config_error():
    with pytest.raises(pz.ConfigError, match=r"memory=1.0: stage 0 alone needs"):
        pz.plan(ranks=4, cost=COST, memory=1.0, search=False)
    with pytest.raises(pz.ConfigError, match="ranks=0: must be an int >= 1"):
        pz.plan(ranks=0)
