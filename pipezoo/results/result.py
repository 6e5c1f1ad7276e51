"""``result.json``: what a run leaves behind in numbers. Each field says what it means, and in what unit.

    Result(task="simulate", status="ok", ...).to_dict()   ->  result.json  ->  Result.from_dict(...)

A folder may be old, torn or not ours: what a field cannot hold is None, names of costs in pipezoo 0.1.0 are read under
today's, and keys that are no field are kept in ``others``.
"""

# ruff: noqa: RUF009 - key() is dataclasses.field with a meaning

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipezoo.results.fields import fit, key, plain, rows
from pipezoo.results.renamed import with_new_result_keys
from pipezoo.results.run_dir import read_result

COST = (
    "seconds of `F`, `B`, `I`, `W` for one microbatch and stage, bytes that F keeps (`activation_bytes`), that I frees "
)
COST += (
    "(`freed_by_input_grad`), that a stage sends (`output_bytes`), of its gradients (`grad_bytes`); `p2p`: `latency`, "
)
COST += "`bandwidth`"
PATH = "the chain of actions that made the last one end when it did: `num_actions`, `num_messages`, seconds by op, by "
PATH += "rank and in messages; `legs`, rank by rank as it goes (the first and the last 12 of `num_legs`)"
PLACEMENT = (
    "with `topology=`: the `grid` of processes and its `order`, `messages` between stages by class of link, the "
)
PLACEMENT += "`replica` and `shard` of the `slowest` pipeline, and what sums over `shards` and `replicas` take"
NEAREST = (
    "of an order of one's own: the fixed `schedule` that is nearest; `crossed` of `pairs` of actions on a rank run the "
)
NEAREST += "other way round there, `distance` is their share; `divergences`, the first difference on each rank; its "
NEAREST += "`step_seconds`, `bubble`, `peak_memory`; `step_ratio`, the own step over its"


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Of the steps after the first."""

    median: float | None = key("of the steps after the first; of a prediction the only one", "s or units")
    min: float | None = key("the shortest", "s or units")
    max: float | None = key("the longest", "s or units")


@dataclass(frozen=True, kw_only=True)
class Causes:
    """What the bubble over the makespan is made of. The parts add up to it; one below 0 hid a part of another one."""

    fill_and_drain: float | None = key("what no order of these stages avoids, were they even", "0 to 1")
    order: float | None = key("what the best order would save", "0 to 1")
    uneven_stages: float | None = key("what stages and microbatches that all take the mean would save", "0 to 1")
    messages: float | None = key("what messages that take no time would save", "0 to 1")
    dispatch: float | None = key(
        "what actions would save that begin once their rank and their input are there", "0 to 1"
    )
    slowed: float | None = key("what a core of its own would save each rank", "0 to 1")
    by_rank: dict[str, list[float]] | None = key("the same of each rank's own time, one number per rank", "0 to 1")


@dataclass(frozen=True, kw_only=True)
class Bubble:
    """Idle shares of all ranks' time."""

    makespan: float | None = key("idle share of all ranks' time over the makespan of the pipeline", "0 to 1")
    span: float | None = key(
        "the same over the longest time from a rank's own first start to its own last end", "0 to 1"
    )
    causes: Causes | None = key("why ranks were idle ([bubble.md](bubble.md))")


@dataclass(frozen=True, kw_only=True)
class Bubbles:
    """Both bubbles of both timelines."""

    measured: Bubble | None = key("of the last recorded step")
    predicted: Bubble | None = key("of the simulated one")


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What each rank holds: for the backward at its peak, and altogether."""

    measured: list[float] | None = key("one number per rank: what it holds for the backward at its peak", "bytes")
    predicted: list[float] | None = key("the same, simulated", "bytes; rank-microbatches for `cost=unit`")
    private: list[float] | None = key("one number per process: what it alone holds after the last step", "bytes")


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What no order of the same work on these ranks can beat."""

    makespan_seconds: float | None = key(
        "the makespan that no order of the same work on these ranks can beat", "s or units"
    )
    bubble: float | None = key("its bubble", "0 to 1")


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the simulator says, from the costs given or from those of the run's own stages."""

    step_seconds: float | None = key("with the optimizer step", "s or units")
    makespan_seconds: float | None = key("without it", "s or units")
    step_error: float | None = key("predicted over measured step, minus 1")
    lower_bound: Bound | None = key("what no order can beat")
    gap: float | None = key("the predicted bubble's distance to that bound", "0 to 1")
    critical_path: dict[str, Any] | None = key(PATH, "s or units")
    cost: dict[str, Any] | None = key(COST, "s, bytes, bytes/s")

    @classmethod
    def of(cls, told: Mapping[str, Any], **more: Any) -> Prediction:
        """Take what :meth:`Simulation.result` told; bubble and memory have places of their own."""
        kept = ("step_seconds", "makespan_seconds", "gap", "critical_path")
        return cls(**{name: told[name] for name in kept}, lower_bound=Bound(**told["lower_bound"]), **more)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run leaves behind in numbers; see :func:`table` for the meaning of each field."""

    status: str | None = key(
        "`running`, `ok`, `failed`, `interrupted`, `does not apply` (in a sweep by `glob`); `running` of a process "
        "that is gone: it was killed"
    )
    exit_code: int | None = key("how a run that is not `ok` ended")
    error: str | None = key("the same in one line")
    started: str | None = key("when the folder was taken; only until the run writes its result", "local time")
    pid: int | None = key("the process that took it; as long")
    task: str | None = key("`train`, `verify`, `simulate`, `plan`")
    model: str | None = key("what was chosen, as on the command line")
    schedule: str | None = key("the same; of a plan: the name of its winner")
    split: str | None = key("how the model was cut")
    data: str | None = key("where batches came from")
    optimizer: str | None = key("what stepped")
    loss: str | None = key("what was minimised")
    executor: str | None = key("what ran the actions of a rank: `native` or `torch`")
    launch: str | None = key("what ran the ranks: `processes`, `virtual`, ...")
    mesh: dict[str, Any] | None = key(
        "replicas of the pipeline (`dp`), processes of a stage (`tp`), their `order`, `dp_with`; null: one of each"
    )
    num_stages: int | None = key("pieces of the model", "stages")
    num_ranks: int | None = key("processes or devices of the pipeline", "ranks")
    num_microbatches: int | None = key("slices of the batch", "microbatches")
    batch_size: int | None = key("of the whole batch", "rows")
    steps: int | None = key("training steps", "steps")
    seed: int | None = key("of parameters, data and dropout")
    dtype: str | None = key("of parameters and data")
    device: str | None = key("`cpu` or `cuda`")
    threads_per_process: int | None = key("that torch used", "threads")
    emulated_cost: str | None = key("the choice of `cost` that actions took the time of (`launch.emulate`)")
    derived: list[str] | None = key("every number that nobody typed, in words")
    git: dict[str, Any] | None = key(
        "of the working folder: `commit`, and `dirty` where a file that git knows was changed"
    )
    host: str | None = key("name of the machine")
    cpu: dict[str, Any] | None = key("`name` of the processor, and the `cores` that the run might use")
    gpus: list[str] | None = key("those that the machine has, used or not")
    versions: dict[str, Any] | None = key("pipezoo, Python, and torch and numpy where they were used")
    config_hash: str | None = key("of the resolved config")
    resumed: dict[str, Any] | None = key("the checkpoint that the run went on `from`, and the `step` that it was of")
    attempts: list[dict[str, Any]] | None = key(
        "of a run that torchrun or Slurm began again: how each ended (`exit_code`, `first_failure`), and `from_step`; "
        "`losses` are those of all steps"
    )
    verified: str | None = key("`exact` (bit for bit), `close` (within `tolerance`), `failed`; null: not asked for")
    max_relative_difference: float | None = key("of any loss, gradient, parameter to one device's")
    tolerance: float | None = key("the largest that is `close`")
    num_compared: int | None = key("tensors that were compared; never 0", "tensors")
    full_batch_difference: float | None = key(
        "of the first gradients to those of the whole batch in one piece, over the largest of them; null where they "
        "cannot be compared. It decides nothing"
    )
    loss_reduces_as_it_says: bool | None = key("false: the loss does not follow its `reduction`, and the run failed")
    failure: str | None = key("why the verification failed, in a sentence")
    first_difference: dict[str, Any] | str | None = key(
        "where `failed`: the first tensor that differs, its stage, both values"
    )
    losses: list[float] | None = key("the loss of each step")
    evaluations: list[dict[str, Any]] | None = key("on held-out batches: the `steps` behind each, and its `loss`")
    best: dict[str, Any] | None = key("the evaluation with the lowest loss, of the runs before a resume as well")
    step_seconds: Spread | None = key("how long a step took")
    first_step_seconds: float | None = key("of the first step, which also warms up", "s")
    wall_step_seconds: float | None = key("the median by the clock on the wall (virtual ranks: of the emulation)", "s")
    samples_per_second: float | None = key("`batch_size` over the median step", "rows/s")
    time_unit: str | None = key("what times count: `s`, or `unit` for `cost=unit`; missing: `s`")
    bubble: Bubbles | None = key("idle shares")
    memory: Memory | None = key("what ranks hold")
    prediction: Prediction | None = key("what the simulator says")
    placement: dict[str, Any] | None = key(PLACEMENT)
    nearest: dict[str, Any] | None = key(NEAREST)
    timeline: str | None = key(
        "what of the timeline is in no file, and why; `timeline.txt` then has a picture of it, some ranks in letters"
    )
    plans: list[dict[str, Any]] | None = key("of a plan: every order that was found, the best first")
    cost_name: str | None = key("the choice of `cost`")
    cost: dict[str, Any] | None = key("of a plan: what `prediction.cost` is of a simulation")
    export: dict[str, Any] | None = key(
        "for each trainer that `export=` named: the `files` written for it, and `notes` of what it should know, or why "
        "there are none ([exports.md](exports.md))"
    )
    others: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def keys(cls) -> list[str]:
        """The keys of ``result.json``."""
        return [one.name for one in dataclasses.fields(cls) if one.name != "others"]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Result:
        """Read what stood in a ``result.json``, of any version and with anything in it."""
        data = with_new_result_keys(data)
        known = {*cls.keys()}
        result: Result = fit(cls, {name: value for name, value in data.items() if name in known})
        return dataclasses.replace(result, others={name: data[name] for name in data if name not in known})

    @classmethod
    def predicted(
        cls,
        told: Mapping[str, Any],
        cost: Mapping[str, Any] | None = None,
        causes: Causes | None = None,
        **more: Any,
    ) -> Result:
        """Take what a simulation told; of a run that trains nothing, it is the whole result.

        Args:
            told: :meth:`Simulation.result`.
            cost: what it was simulated with, where that belongs to the prediction.
            causes: why its ranks were idle.
            more: other fields.
        """
        return cls(
            status="ok",
            step_seconds=Spread(median=told["step_seconds"]),
            bubble=Bubbles(predicted=Bubble(**told["bubble"], causes=causes)),
            memory=Memory(predicted=told["peak_memory"]),
            prediction=Prediction.of(told, cost=cost),
            **more,
        )

    @classmethod
    def of(cls, folder: str | Path) -> Result:
        """Read ``result.json`` of a run's folder. Raises ConfigError where there is no run in it."""
        return cls.from_dict(read_result(folder))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without what does not apply; ``verified`` is always there, null where nothing was compared."""
        return {"verified": None, **plain(self), **self.others}


def table() -> str:
    """The fields of ``result.json`` as a table in Markdown; ``docs/result-folder.md`` holds it."""
    lines = "\n".join(f"| {name} | {meaning} | {unit} |" for name, meaning, unit in rows(Result))
    return f"| key | meaning | unit |\n|---|---|---|\n{lines}\n"


if __name__ == "__main__":
    print(table(), end="")
