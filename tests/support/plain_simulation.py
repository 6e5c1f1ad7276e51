"""The plain simulation, obviously right, that the fast one is compared with; and random legal orders to do it on."""

from __future__ import annotations

import random

from hypothesis import strategies as st

from pipezoo.schedule.action import Action, Op
from pipezoo.schedule.schedule import Schedule
from pipezoo.simulator.cost import Cost


def source(action, num_stages, split):
    """The action of the neighbouring stage whose result this one needs, or None."""
    stage, op, microbatch, *_ = action
    if op == Op.F and stage > 0:
        return Action(stage - 1, Op.F, microbatch)
    if op in (Op.B, Op.I) and stage < num_stages - 1:
        return Action(stage + 1, Op.I if (stage + 1, microbatch) in split else Op.B, microbatch)
    return None


def simulate(schedule, cost):
    """When each action starts and ends: {action: (start, end)}."""
    orders = [[part for item in order for part in item.parts or (item,)] for order in schedule.order]
    second_of = {item.parts[1]: item.parts[0] for order in schedule.order for item in order if item.parts}
    split = {(action.stage, action.microbatch) for order in orders for action in order if action.op == Op.I}
    p2p_seconds = cost.p2p_seconds(schedule.stage_to_rank)

    def p2p(action, other):
        """What the message between two neighbouring stages takes; 0 where there is none."""
        return p2p_seconds[min(action.stage, other)] if 0 <= other < schedule.num_stages else 0.0

    def seconds(action):
        return cost.seconds[action.stage, action.op]

    spans = {}
    free = [0.0] * schedule.num_ranks
    todo = [list(order) for order in orders]
    while any(todo):
        for rank, order in enumerate(todo):
            needs = source(order[0], schedule.num_stages, split) if order else None
            if not order or (needs and needs not in spans):
                continue
            action = order.pop(0)
            comes_from, goes_to = {
                Op.F: (action.stage - 1, action.stage + 1),
                Op.B: (action.stage + 1, action.stage - 1),
                Op.I: (action.stage + 1, action.stage - 1),
                Op.W: (-1, -1),
            }[action.op]
            idle_from, made = free[rank], spans[needs][1] if needs else 0.0
            if action in second_of and (action.op == Op.F) != (second_of[action].op == Op.F):
                idle_from -= cost.overlap_gain * min(seconds(second_of[action]), seconds(action))
            if cost.overlap:
                start = max(idle_from, made + p2p(action, comes_from))
                free[rank] = start + seconds(action)
            else:
                start = max(idle_from, made) + p2p(action, comes_from)
                free[rank] = start + seconds(action) + p2p(action, goes_to)
            spans[action] = (start, start + seconds(action))
    return spans


def memory(schedule, cost):
    """For each rank, what it holds while each action of its order runs."""
    levels = []
    for order in schedule.order:
        level, at = 0.0, []
        for item in order:
            parts = item.parts or (item,)
            level += sum(cost.activation_bytes[part.stage] for part in parts if part.op == Op.F)
            for part in parts:
                at.append(level)
                activation_bytes, frees = cost.activation_bytes[part.stage], cost.freed_by_input_grad[part.stage]
                level -= {Op.F: 0.0, Op.B: activation_bytes, Op.I: frees, Op.W: activation_bytes - frees}[part.op]
        levels.append(at)
    return levels


@st.composite
def schedules(draw, pairs=True):
    """Any legal order: some action that could run next is appended to its rank's list, again and again."""
    num_ranks = draw(st.integers(1, 4))
    num_stages = num_ranks + draw(st.integers(0, 3))
    num_microbatches = draw(st.integers(1, 5))
    chance = random.Random(draw(st.integers(0, 2**32)))
    placed = [*range(num_ranks), *(chance.randrange(num_ranks) for _ in range(num_stages - num_ranks))]
    chance.shuffle(placed)
    share = draw(st.sampled_from([0.0, 0.5, 1.0]))
    cells = [(stage, microbatch) for stage in range(num_stages) for microbatch in range(num_microbatches)]
    split = {cell for cell in cells if chance.random() < share}

    waiting = [Action(stage, Op.F, microbatch) for stage, microbatch in cells]
    for stage, microbatch in cells:
        halves = (Op.I, Op.W) if (stage, microbatch) in split else (Op.B,)
        waiting += [Action(stage, op, microbatch) for op in halves]
    done, orders = set(), [[] for _ in range(num_ranks)]

    def ready(action):
        stage, op, microbatch, *_ = action
        own = {Op.F: None, Op.B: Op.F, Op.I: Op.F, Op.W: Op.I}[op]
        needs = [source(action, num_stages, split), None if own is None else Action(stage, own, microbatch)]
        return all(need is None or need in done for need in needs)

    while waiting:
        action = chance.choice([action for action in waiting if ready(action)])
        waiting.remove(action)
        done.add(action)
        orders[placed[action.stage]].append(action)
    return Schedule.from_orders(_with_pairs(orders, chance) if pairs else orders)


def _with_pairs(orders, chance):
    """Some neighbours of different microbatches become an OVERLAP_F_B."""
    paired = []
    for order in orders:
        paired.append([])
        for action in order:
            before = paired[-1][-1] if paired[-1] else None
            if before and not before.parts and before.microbatch != action.microbatch and chance.random() < 0.5:
                paired[-1][-1] = Action(-1, Op.OVERLAP_F_B, None, (before, action))
            else:
                paired[-1].append(action)
    return paired


@st.composite
def costs(draw, num_stages, gains=(0.0, 0.5, 1.0)):
    """Costs in whole numbers (and halves of them), so that sums are exact in whatever order they are made."""
    small = st.integers(0, 9)
    stages = [
        {"F": draw(small), "B": draw(small), "I": draw(small), "W": draw(small)}
        | {
            "activation_bytes": draw(st.integers(4, 9)),
            "freed_by_input_grad": draw(st.integers(0, 4)),
            "output_bytes": draw(small),
        }
        for _ in range(num_stages)
    ]
    overlap = draw(st.booleans())
    return Cost.from_dict(
        {
            "stages": stages,
            "p2p": {"latency": draw(st.integers(0, 5)), "bandwidth": draw(st.sampled_from([0.5, 1, 4]))},
            "overlap": overlap,
            "overlap_gain": draw(st.sampled_from(gains)) if overlap else 0.0,
        }
    )


@st.composite
def cases(draw, pairs=True):
    schedule = draw(schedules(pairs))
    return schedule, draw(costs(schedule.num_stages))
