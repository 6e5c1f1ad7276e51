from __future__ import annotations

from types import SimpleNamespace

import pytest

from pipezoo.costs.unit import unit
from pipezoo.planner.options import PlanOptions
from pipezoo.planner.plan import make_plans
from pipezoo.planner.plans import ranked
from pipezoo.results.units import amount
from pipezoo.schedules import fixed_orders, generators
from pipezoo.simulator.cost import Cost


def real(num_stages, v, m=None):
    return unit(num_stages, v, F=18.522, I=18.086, W=9.337, p2p=0.601, freed_by_input_grad=0.634)


def test_the_zoo_is_the_folder():
    assert {"gpipe", "one_f_one_b", "zbv", "v_half", "hanayo"} <= set(generators())
    assert "csv" not in generators()  # it knows no sizes but those of its file


def test_every_order_is_looked_at_once():
    names = [schedule.name for schedule in fixed_orders(4, 8, 1)]
    assert "zb_h1" in names
    assert "interleaved_zero_bubble" not in names  # with one stage a rank it is zb_h1
    assert len(names) == len(set(names))


def test_the_table_is_ranked_and_its_first_is_no_worse_than_any_fixed_schedule():
    plans = make_plans(real, 4, [12], PlanOptions(memory=4.0, time_limit_s=2.0, iterations=20))

    steps = [plan.step for plan in plans.ranked]
    assert steps == sorted(steps)
    assert plans.ranked[0].step <= min(plan.step for plan in plans.ranked if plan.made == "fixed")
    assert all(plan.peak <= 4.0 + 1e-6 for plan in plans.ranked)
    assert all(plan.gap >= -1e-9 for plan in plans.ranked)
    assert {plan.name for plan in plans.ranked} >= {"planned", "planned V", "planned loop", "1f1b", "zbv", "v_half"}
    assert plans.too_large >= 3  # gpipe, looped_bfs, zb_h2 ...


def test_between_v_min_and_1f1b_more_memory_is_a_smaller_bubble():
    steps = [
        make_plans(real, 8, [16], PlanOptions(memory=memory, time_limit_s=5.0, iterations=5, stages_per_rank=(2,)))
        .ranked[0]
        .step
        for memory in (4.0, 5.0, 6.0, 8.0)
    ]
    assert steps == sorted(steps, reverse=True)


def test_the_same_seed_makes_the_same_plans():
    def steps(seed):
        options = PlanOptions(memory=6.0, time_limit_s=60.0, iterations=10, stages_per_rank=(2,))
        return [plan.step for plan in make_plans(real, 4, [8], options, seed=seed).ranked]

    assert steps(1) == steps(1)


def test_numbers_of_microbatches_are_compared_by_the_time_of_one():
    plans = make_plans(real, 4, [8, 16], PlanOptions(search=False))
    assert plans.ranked[0].schedule.num_microbatches == 16


def test_costs_of_whole_backwards_plan_fixed_orders_of_whole_backwards():
    def whole(num_stages, v, m):
        return Cost.from_dict({"stages": {"F": 1 / v, "B": 2 / v}}, num_stages)

    plans = make_plans(whole, 4, [8], PlanOptions(time_limit_s=0.5))
    assert {plan.made for plan in plans.ranked} == {"fixed"}
    assert not {"zbv", "zb_h1"} & {plan.name for plan in plans.ranked}
    assert any("I and W must be known" in note for note in plans.notes)


def test_of_plans_that_costs_cannot_tell_apart_the_simplest_comes_first():
    def row(name, made, pace, stages_per_rank):
        return SimpleNamespace(name=name, made=made, pace=pace, peak=1, stages_per_rank=stages_per_rank)

    rows = [
        row("planned loop", "planned", 1.000, 2),
        row("planned", "planned", 1.001, 1),
        row("zbv", "fixed", 1.003, 2),
        row("1f1b", "fixed", 1.004, 1),
    ]

    def names(tie, *rows):
        return [row.name for row in ranked(rows, "step", tie)]

    assert names(0.0, *rows) == ["planned loop", "planned", "zbv", "1f1b"]
    assert names(0.005, *rows) == ["planned", "zbv", "planned loop", "1f1b"]  # none is slower than the best fixed one
    assert names(0.002, *rows) == ["planned", "planned loop", "zbv", "1f1b"]
    assert names(0.005, *rows[:1], *rows[3:]) == ["1f1b", "planned loop"]


def test_schedules_can_be_named():
    plans = make_plans(real, 4, [8], PlanOptions(schedules=("1f1b", "gpipe"), place_weight_grads=False, search=False))
    assert [plan.name for plan in plans.ranked] == ["gpipe", "1f1b"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"memory": "2 GB"}, "memory=2 GB: stage 3 alone needs 2.1 GB of 2 GB for one microbatch"),
        ({"memory": 3e9, "stages_per_rank": (2,)}, "memory=3000000000.0: no order fits"),
        ({"schedules": ("1f2b",), "search": False}, "schedules=1f2b: unknown schedule of this size"),
    ],
)
def test_what_cannot_be_planned_is_one_line(options, text):
    def large(num_stages, v, m):
        stages = [
            {"F": 1, "I": 1, "W": 1, "activation_bytes": 2.1e9 if stage == 3 else 2e9} for stage in range(num_stages)
        ]
        return Cost.from_dict({"stages": stages})

    with pytest.raises(ValueError, match=r"=") as error:
        make_plans(large, 4, [8], PlanOptions(time_limit_s=1.0, **options))
    assert str(error.value).startswith(text)


def test_a_model_that_is_too_large_is_blamed_before_one_that_cannot_be_cut():
    def only_one_stage_a_rank(num_stages, v, m):
        if v == 2:
            raise ValueError("stages=8: the model has 7 module(s) in a row; valid: 1..7")
        return Cost.from_dict({"stages": {"F": 1, "I": 1, "W": 1, "activation_bytes": 3e6}}, num_stages)

    with pytest.raises(ValueError, match=r"^memory=1MB: stage 0 alone needs 3 MB of 1 MB for one microbatch"):
        make_plans(only_one_stage_a_rank, 4, [8], PlanOptions(memory="1MB"))


def test_a_shared_batch_is_ranked_by_its_own_time():
    """Sixteen microbatches of half the rows: each takes more than half of the time, and the bubble is smaller."""

    def by_rows(num_stages, v, m):
        return unit(num_stages, v, F=16 / m + 0.1, I=16 / m + 0.1, W=16 / m + 0.1)

    plans = make_plans(by_rows, 4, [8, 16], PlanOptions(time_limit_s=1, stages_per_rank=(1,)), shared=True)

    steps = [plan.step for plan in plans.ranked]
    assert steps == [plan.pace for plan in plans.ranked]
    assert steps == pytest.approx(sorted(steps))
    assert plans.ranked[0].schedule.num_microbatches == 16


def test_fixed_schedules_with_their_weight_halves_placed_anew_are_plans():
    options = PlanOptions(schedules=("dualpipev",), search=False, stages_per_rank=(2,))
    plans = make_plans(lambda stages, v, m: unit(stages, v, p2p=0.1), 8, [16], options)
    assert [(plan.name, plan.made) for plan in plans.ranked] == [
        ("dualpipev, W moved", "moved"),
        ("dualpipev", "fixed"),
    ]
    assert plans.best_fixed is plans.ranked[1]
    assert plans.ranked[0].peak <= plans.ranked[1].peak


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"time_limit_s": 0}, "time_limit_s=0: must be a number > 0, of seconds"),
        ({"memory": "2 XB"}, "memory=2 XB: must be a number > 0, or text like 2GB, 512MiB; null: no limit"),
        ({"memory": 0}, "memory=0: must be a number > 0"),
        ({"stages_per_rank": ()}, "stages_per_rank=[]: needs at least one number"),
        ({"stages_per_rank": (0,)}, "stages_per_rank=0: must be an int >= 1"),
        ({"objective": "speed"}, "objective=speed: unknown word; valid: step, span"),
        ({"iterations": -1}, "iterations=-1: must be an int >= 0"),
    ],
)
def test_wishes_out_of_range_are_named(options, text):
    with pytest.raises(ValueError, match="=") as error:
        PlanOptions(**options)
    assert str(error.value).startswith(text)


def test_memory_is_spelled_as_people_do():
    assert [PlanOptions(memory=m).limit for m in ("2GB", "1.5 GiB", "300MB", "1e9", 7)] == [
        2e9,
        1.5 * 2**30,
        3e8,
        1e9,
        7,
    ]
    assert [amount(v) for v in (2.1e9, 3.25e8, 1500, 12)] == ["2.1 GB", "325 MB", "1.5 kB", "12 B"]
    assert amount(8.5, "") == "8.5"
