"""Five plain sentences about a run, each with its number: what to change next, and why."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipezoo.explain.alternatives import Measured
from pipezoo.explain.changes_worth import Change
from pipezoo.results.bubble import WORDS, sentence
from pipezoo.results.result import Result
from pipezoo.results.units import count, time_text
from pipezoo.schedule.action import Op
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.simulate import simulate

EVEN = 1.1  # stages whose longest takes at most so many times the shortest are called even


def sentences(result: Result, schedule: Schedule, measured: Measured, worth: Sequence[Change]) -> list[str]:
    """The sentences in the order in which they help: change, bubble, largest cause, stages, how far to trust it."""
    said = [_next(measured, worth), _bubble(result, measured), _cause(result, schedule, measured)]
    return [*(words for words in said if words), _stages(schedule, measured.cost), _trust(result, measured)]


def _next(measured: Measured, worth: Sequence[Change]) -> str:
    if not worth:
        return f"No change is predicted to save more than the error of these predictions, {percent(measured.error)}."
    first, *others = worth
    said = f"Next: {first.words} is predicted to save {percent(first.saved)} ({first.command})"
    more = "; ".join(f"{other.words}: {percent(other.saved)}" for other in others)
    return said + (f"; then {more}." if more else ".")


def _bubble(result: Result, measured: Measured) -> str:
    bubble = result.bubble.measured if result.bubble else None
    if bubble is None or bubble.makespan is None:
        return ""
    said = f"A step takes {time_text(measured.step)}, and ranks are idle for {percent(bubble.makespan)} of it"
    shares = _shares(result)
    return f"{said}: {sentence(bubble.makespan, shares)}." if shares else f"{said}."


def _cause(result: Result, schedule: Schedule, measured: Measured) -> str:
    shares = _shares(result)
    if not shares:
        return ""
    largest = max(shares, key=lambda name: shares[name])
    cost, m = measured.cost, schedule.num_microbatches
    forward = float(cost.seconds[:, Op.F].mean())
    latency = float(cost.p2p_seconds(schedule.stage_to_rank).max(initial=0.0))
    why = {
        "fill_and_drain": f"{count(m, 'microbatch')} on {count(schedule.num_ranks, 'rank')} leave them idle at "
        "both ends of a step, in every order",
        "order": "the best order of this work would be idle for that much less",
        "uneven_stages": "ranks wait for the slowest stage, or for microbatches that took longer than others",
        "messages": f"a message takes {time_text(latency)}, a forward {time_text(forward)}",
        "dispatch": f"beside a forward of {time_text(forward)}, what a rank does between two actions is not small",
        "slowed": "processes had no core of their own; launch=virtual times the pipeline as if they had",
    }[largest]
    return f"The largest part is {WORDS[largest]}, {percent(shares[largest])} of all time: {why}."


def _stages(schedule: Schedule, cost: Cost) -> str:
    whole = np.fmin(cost.seconds[:, Op.B], cost.seconds[:, Op.I] + cost.seconds[:, Op.W])
    each = (cost.seconds[:, Op.F] + whole).tolist()
    slow, fast = each.index(max(each)), each.index(min(each))
    if cost.for_every_stage or each[slow] <= EVEN * each[fast]:
        return f"Stages are even: each takes about {time_text(each[slow])} a microbatch."
    even = simulate(schedule, Cost(np.broadcast_to(cost.seconds.mean(axis=0), cost.seconds.shape))).makespan
    now = simulate(schedule, Cost(cost.seconds)).makespan
    shorter = percent(max(0.0, 1 - even / now))
    return (
        f"Stage {slow} takes {each[slow] / each[fast]:.1f} times stage {fast} ({time_text(each[slow])} against "
        f"{time_text(each[fast])} a microbatch); equal stages would make the order {shorter} shorter."
    )


def _trust(result: Result, measured: Measured) -> str:
    off = measured.predicted / measured.step - 1.0
    verdict = f"its numbers are {result.verified}" if result.verified else "its numbers were not verified"
    return (
        f"The simulator gave {time_text(measured.predicted)} for the step that took {time_text(measured.step)} "
        f"({100 * off:+.0f} %), so predictions here are good to {percent(measured.error)}; {verdict}."
    )


def _shares(result: Result) -> dict[str, float]:
    bubble = result.bubble.measured if result.bubble else None
    causes = bubble.causes if bubble else None
    return {} if causes is None else {name: float(getattr(causes, name) or 0.0) for name in WORDS}


def percent(share: float) -> str:
    """``12 %``, and one decimal below ten."""
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.1f} %"
