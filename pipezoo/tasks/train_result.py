"""What a training run leaves in ``result.json``: what ran, what came out, and the prediction beside it."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

from pipezoo.experiment.derive import Sizes
from pipezoo.experiment.experiment import Experiment
from pipezoo.results.provenance import provenance
from pipezoo.results.result import Bubble, Bubbles, Causes, Memory, Prediction, Result, Spread
from pipezoo.results.units import count
from pipezoo.runtime.evaluation import NUMBER, Evaluation
from pipezoo.runtime.measurements import Steps, peak_bytes
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.simulator.bubble_causes import BubbleCauses, causes_of_simulation
from pipezoo.simulator.simulate import Simulation
from pipezoo.simulator.timeline import Timeline
from pipezoo.tasks.terminal import PrintLine


def described(experiment: Experiment, pipeline: Pipeline, sizes: Sizes) -> Result:
    """What ran, with nothing of what came out."""
    return Result(
        task=experiment.task,
        model=experiment.model_name,
        schedule=experiment.schedule_name,
        split=experiment.split_name,
        data=experiment.data_name,
        optimizer=experiment.optimizer_name,
        loss=experiment.loss_name,
        launch=experiment.launch_name,
        mesh=experiment.mesh.told(),
        executor=experiment.executor_name,
        num_stages=sizes.num_stages,
        num_ranks=sizes.num_ranks,
        num_microbatches=sizes.num_microbatches,
        batch_size=sizes.batch_size,
        steps=experiment.steps,
        seed=experiment.seed,
        dtype=experiment.dtype,
        device=experiment.device,
        threads_per_process=pipeline.threads,
        emulated_cost=experiment.cost.choice if pipeline.emulated else None,
        derived=[*sizes.lines, *sizes.batch_lines],
        config_hash=experiment.config_hash,
        resumed={"from": str(saved.path), "step": saved.step} if (saved := pipeline.saved) else None,
        **provenance(),
    )


def shown_to_trackers(experiment: Experiment, described: Result) -> dict[str, Any]:
    """What runs, for trackers: words of pipezoo, and numbers of the parts. A text may be a secret."""
    kinds = (int, float, bool, str)
    found = {name: value for name, value in described.to_dict().items() if isinstance(value, kinds)}
    for component in (experiment.model, experiment.data, experiment.optimizer):
        numbers = {name: value for name, value in component.arguments.items() if isinstance(value, (int, float))}
        found |= {f"{component.group}.{name}": value for name, value in numbers.items()}
    return found


def measured_fields(experiment: Experiment, sizes: Sizes, steps: Steps, measured: list[Timeline]) -> dict[str, Any]:
    """The fields of what came out. The launch says which clock counts."""
    wall = steps.steady()
    seconds = experiment.launch.step_seconds(wall, measured)
    median = statistics.median(seconds)
    return {
        "losses": [losses[-1] for losses in steps.losses],
        "step_seconds": Spread(median=median, min=min(seconds), max=max(seconds)),
        "first_step_seconds": steps.seconds[0],
        "wall_step_seconds": statistics.median(wall),
        "samples_per_second": sizes.batch_size / median,
    }


def compared_fields(
    predicted: Simulation, measured: Timeline, causes: BubbleCauses, memory: Memory, step_seconds: float
) -> dict[str, Any]:
    """The fields that put the prediction from this run's own stage times beside what it measured."""
    told = predicted.result()
    error = told["step_seconds"] / step_seconds - 1.0
    return {
        "bubble": Bubbles(
            measured=Bubble(**measured.bubbles(), causes=Causes(**causes.summary())),
            predicted=Bubble(**told["bubble"], causes=Causes(**causes_of_simulation(predicted).summary())),
        ),
        "memory": replace(memory, predicted=told["peak_memory"]),
        "prediction": Prediction.of(told, step_error=error, cost=predicted.cost.to_dict()),
    }


def memory_of(told: list[dict[str, Any]]) -> Memory:
    """What each rank kept for the backward, and what each process held."""
    private = [float(words["private"]) for words in told if words["private"] is not None]
    return Memory(measured=list(map(float, peak_bytes(told))), private=private or None)


def evaluated_fields(pipeline: Pipeline, evaluation: Evaluation, steps: Steps, print_line: PrintLine) -> dict[str, Any]:
    """The fields of what the evaluations came to, and a line of it."""
    first = pipeline.steps_to_do.start
    found = [(first + i + 1, numbers[NUMBER]) for i, numbers in enumerate(steps.numbers) if NUMBER in numbers]
    history = evaluation.history([*(pipeline.saved.evaluations if pipeline.saved else []), *found])
    loss, step = history.best
    done = first + len(steps.losses)
    early = f"; ended early, after {count(done, 'step')}" if done < pipeline.steps else ""
    best = f"best {loss:.6g} after {count(step, 'step')}" if step else "none of them a number"
    print_line(f"evaluated {count(len(found), 'time')} on {count(evaluation.num_batches, 'batch')}: {best}{early}")
    told = {"evaluations": [{"steps": after, "loss": value} for after, value in found], "steps": done}
    return told | ({"best": {"steps": step, "loss": loss}} if step else {})
