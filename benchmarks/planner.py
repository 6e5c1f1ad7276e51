"""How good planned orders are, and how long the search takes: the tables of docs/planner.md.

    python benchmarks/planner.py                    all tables, about five minutes
    python benchmarks/planner.py paper interleaved  some of them, by name

Costs are those that "Zero Bubble Pipeline Parallelism" (arXiv:2401.10241) publishes in its table 9, in milliseconds;
its bubble rates (table 5) are the columns ZB-1p and ZB-2p. Memory counts in rank-microbatches. What I frees of an
activation follows from the paper's counts of bytes: 1 - 32 / (34 + 5as/h).
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Iterator

from pipezoo.costs.unit import unit
from pipezoo.planner.options import PlanOptions
from pipezoo.planner.plan import Plan, make_plans
from pipezoo.planner.problem import Problem
from pipezoo.planner.replace_weight_grads import replace_weight_grads
from pipezoo.planner.search import Search
from pipezoo.planner.weight_placement import Placed
from pipezoo.schedules.dualpipev import dualpipev
from pipezoo.schedules.interleaved_zero_bubble import interleaved_zero_bubble
from pipezoo.schedules.v_half import v_half
from pipezoo.schedules.v_min import v_min
from pipezoo.schedules.zb_h1 import zb_h1
from pipezoo.schedules.zb_h2 import zb_h2
from pipezoo.schedules.zbv import zbv
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.simulate import predict

PAPER = [  # model, p, m, TF, TB, TW, Tc, what I frees, ZB-1p, ZB-2p
    ("1.5B", 8, 24, 18.522, 18.086, 9.337, 0.601, 0.634, 0.1585, 0.0433),
    ("1.5B", 8, 64, 18.546, 18.097, 9.321, 0.762, 0.634, 0.0674, 0.0026),
    ("6.2B", 8, 24, 29.718, 29.444, 19.927, 0.527, 0.5675, 0.1323, 0.0029),
    ("6.2B", 8, 32, 29.802, 29.428, 19.530, 0.577, 0.5675, 0.1045, 0.0022),
    ("14.6B", 16, 64, 11.307, 11.254, 8.101, 0.379, 0.5675, 0.1088, 0.0054),
    ("28.3B", 32, 96, 10.419, 10.207, 7.715, 0.408, 0.5675, 0.1421, 0.0038),
]
MORE = [  # the paper's other numbers of microbatches, with the costs of the row above that is nearest
    (name, p, m, *next(row for row in reversed(PAPER) if row[0] == name)[3:8], None, None)
    for name, p, m in (
        ("1.5B", 8, 32),
        ("6.2B", 8, 64),
        ("14.6B", 16, 48),
        ("14.6B", 16, 128),
        ("28.3B", 32, 128),
        ("28.3B", 32, 256),
    )
]


def cost_of(row: tuple, v: int = 1) -> Cost:
    _, p, _, F, I, W, p2p, frees, *_ = row
    return unit(p * v, v, F=F, I=I, W=W, p2p=p2p, freed_by_input_grad=frees)


def share(problem: Problem, seconds: float) -> float:
    """The bubble that a time of the longest rank, or of the pipeline, means."""
    return 1 - problem.work(0) / seconds


def timed(
    problem: Problem, objective: str, time_limit_s: float, starts: list, iterations: int
) -> tuple[Placed | None, float, float]:
    """The best order, the seconds until it was found, and the seconds of the whole search; CPU time of one core."""
    found = [0.0]
    begin = time.process_time()
    search = Search(problem, objective, time.monotonic() + time_limit_s)
    search.on_progress = lambda tried, placed: found.append(time.process_time() - begin)
    placed = search.run(starts, iterations)
    return placed, found[-1], time.process_time() - begin


def paper() -> None:
    """v = 1: the span in the memory of 1F1B (ZB-1p) and twice that (ZB-2p)."""
    print(
        "| model, p, m | memory | ZB-H1, ZB-H2 | paper | planned, span | its makespan | bound | found after | search |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for row in PAPER + MORE:
        name, p, m, *_ = row
        for times, published in ((1, row[8]), (2, row[9])):
            problem = Problem(cost_of(row), tuple(range(p)), m, (float(times * p),) * p)
            placed, found, searched = timed(problem, "span", 0.1 if p <= 8 else 1.0, [], 0)
            span, step = share(problem, placed.span), share(problem, placed.step)
            mark = "" if published is None or round(span, 4) <= published else " (worse)"
            known = "" if published is None else f"{published:.4f}"
            simple = zb_h1(p, m) if times == 1 else zb_h2(p, m)
            fixed = predict(simple, cost_of(row))["bubble"]["span"]
            print(
                f"| {name} {p} {m} | {times}p | {fixed:.4f} | {known} | **{span:.4f}**{mark} | {step:.4f} "
                f"| {share(problem, problem.plain_bound):.4f} | {found:.3f} s | {searched:.2f} s |",
                flush=True,
            )


def interleaved() -> None:
    """v = 2 in the memory of 1F1B: the makespan."""
    print(
        "| model, p, m | ZB-V | interleaved ZB | V planned | loop planned | bound v=2 | V in this memory | loop in it |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in PAPER:
        name, p, m, *_ = row
        cost = cost_of(row, 2)
        cells, bounds = [], []
        for function in (zbv, interleaved_zero_bubble):
            cells.append(predict(function(p, m), cost)["bubble"]["makespan"])
        for function in (zbv, interleaved_zero_bubble):
            fixed = function(p, m)
            problem = Problem(cost, fixed.stage_to_rank, m, (float(p),) * p)
            placed, _, _ = timed(problem, "step", 10.0, [fixed], 200)
            cells.append(share(problem, placed.step))
            bounds = [share(problem, problem.plain_bound), *bounds[1:], share(problem, problem.bound)]
        print(f"| {name} {p} {m} | {' | '.join(f'{cell:.4f}' for cell in cells + bounds)} |", flush=True)


def weights() -> None:
    """W moved in fixed orders: same messages, same memory; F = I = W = 1 for a rank."""
    print("| schedule, p, m | p2p message | before | after | times as fast | memory before, after | time |")
    print("|---|---|---|---|---|---|---|")
    for function, p, m in ((dualpipev, 8, 16), (dualpipev, 16, 64), (zbv, 8, 16), (zbv, 16, 64)):
        for p2p in (0.05, 0.1, 0.2, 0.3):
            schedule, cost = function(p, m), unit(2 * p, 2, p2p=p2p)
            begin = time.process_time()
            replaced = replace_weight_grads(schedule, cost)
            took = time.process_time() - begin
            old, new = predict(schedule, cost), predict(replaced, cost)
            print(
                f"| {schedule.name} {p} {m} | {p2p} "
                f"| {old['bubble']['makespan']:.4f} | {new['bubble']['makespan']:.4f} "
                f"| {old['step_seconds'] / new['step_seconds']:.3f} "
                f"| {max(old['peak_memory']):g}, {max(new['peak_memory']):g} | {took * 1e3:.0f} ms |",
                flush=True,
            )


def pareto() -> None:
    """Memory between V-Min's and 1F1B's: the best plan of each limit."""
    print("| costs | memory | best plan | bubble | fixed that fits best | bubble |")
    print("|---|---|---|---|---|---|")
    for row in (PAPER[2], ("equal costs", 8, 24, 1.0, 1.0, 1.0, 0.0, 0.0)):
        _, p, m, *_ = row
        for limit in range(4, 9):
            plans = make_plans(
                lambda stages, v, m, row=row: cost_of(row, v),
                p,
                [m],
                PlanOptions(memory=float(limit), time_limit_s=6.0),
            )
            best = plans.ranked[0]
            fixed = next((plan for plan in plans.ranked if plan.made == "fixed"), None)
            cells = [best.name, f"**{makespan(best):.4f}**"]
            cells += [fixed.name, f"{makespan(fixed):.4f}"] if fixed else ["none", ""]
            print(f"| {row[0]} {p} {m} | {limit} | {' | '.join(cells)} |", flush=True)
        for function in (v_min, v_half):
            schedule = function(p, m)
            prediction = predict(schedule, cost_of(row, 2))
            peak, bubble = max(prediction["peak_memory"]), prediction["bubble"]["makespan"]
            print(f"| {row[0]} {p} {m} | {peak:g} | ({schedule.name}) | {bubble:.4f} | | |", flush=True)


def makespan(plan: Plan) -> float:
    return float(plan.prediction["bubble"]["makespan"])


def large() -> None:
    """p = 64, m = 512 in the memory of 1F1B."""
    row = ("6.2B", 64, 512, *PAPER[2][3:])
    begin = time.monotonic()
    plans = make_plans(lambda stages, v, m: cost_of(row, v), 64, [512], PlanOptions(memory=64.0, time_limit_s=30.0))
    took = time.monotonic() - begin
    best = plans.ranked[0]
    fixed = next(plan for plan in plans.ranked if plan.made == "fixed")
    print("| best plan | bubble | best fixed schedule | bubble | bound | wall time of all |")
    print("|---|---|---|---|---|---|")
    bound = best.prediction["lower_bound"]["bubble"]
    print(f"| {best.name} | {makespan(best):.5f} | {fixed.name} | {makespan(fixed):.5f} | {bound:.5f} | {took:.0f} s |")


def curve() -> None:
    """Time against quality: the best order after so many seconds of CPU."""
    moments = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    print(f"| search | {' | '.join(f'{moment:g} s' for moment in moments)} | bound |")
    print("|---|" + "---|" * (len(moments) + 1))
    for label, problem, starts in _curves():
        history: list[tuple[float, float]] = []
        begin = time.process_time()
        search = Search(problem, "step", time.monotonic() + moments[-1])
        search.on_progress = lambda tried, placed, h=history, b=begin: h.append((time.process_time() - b, placed.step))
        search.run(starts, 10**6)
        cells = []
        for moment in moments:
            until = [step for when, step in history if when <= moment]
            cells.append(f"{share(problem, until[-1]):.4f}" if until else "-")
        print(f"| {label} | {' | '.join(cells)} | {share(problem, problem.bound):.4f} |", flush=True)


def _curves() -> Iterator[tuple[str, Problem, list]]:
    for row in (PAPER[0], PAPER[2], PAPER[4]):
        name, p, m, *_ = row
        yield f"{name} {p} {m}, v=1, 1p", Problem(cost_of(row), tuple(range(p)), m, (float(p),) * p), []
        fixed = zbv(p, m)
        problem = Problem(cost_of(row, 2), fixed.stage_to_rank, m, (float(p),) * p)
        yield f"{name} {p} {m}, V, 1p", problem, [fixed]


TABLES = {table.__name__: table for table in (paper, interleaved, weights, pareto, large, curve)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; default: all")
    arguments = parser.parse_args()
    if unknown := set(arguments.tables) - set(TABLES):
        parser.error(f"no such table: {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    load = statistics.mean(os.getloadavg()) if hasattr(os, "getloadavg") else 0.0
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, load {load:.1f}")
    for name in arguments.tables or TABLES:
        print(f"\n### {name}: {TABLES[name].__doc__}\n")
        TABLES[name]()


if __name__ == "__main__":
    main()
