"""Held-out batches, and what a run would find wrong with its evaluation, found before any process starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import nn

from pipezoo.data.batch import Batch
from pipezoo.errors import ArgumentError, ConfigError, first_line
from pipezoo.experiment.experiment import Experiment
from pipezoo.runtime.batch_shapes import Shapes
from pipezoo.runtime.evaluation import Evaluation, evaluating
from pipezoo.runtime.feed import source_of
from pipezoo.runtime.stages import Tensors
from pipezoo.splitters._copies import copies
from pipezoo.splitters._dry_run import run, same_bits

FIRST_DRAW = 2**31  # the step whose draws are the first held-out batch: no training comes that far
DEFAULT = 4  # batches, where the data have no length


def evaluation_of(experiment: Experiment, batch_size: int, training: Callable[[int], Batch]) -> Evaluation | None:
    """What is evaluated; None where nothing is.

    Raises:
        ConfigError: the data do not say which of them are held out, or are too few.
    """
    options = experiment.eval
    if options.every is None:
        return None
    if not options.data:
        if hasattr(training, "workers"):
            raise ConfigError(
                f"eval.data=null: data={experiment.data_name} has rows, and all of them are trained on; "
                "valid: what differs for held-out rows, as eval.data={path: held_out.parquet}"
            )
        return Evaluation(options, lambda number: training(FIRST_DRAW + number), options.batches or DEFAULT)
    node = dict(options.data)
    target = node.pop("_target_", experiment.data.target)
    arguments = node if target != experiment.data.target else {**experiment.data.arguments, **node}
    component = replace(experiment.data, target=target, arguments=arguments)
    try:
        source = source_of(component, batch_size, experiment.seed)
    except ConfigError as error:
        raise ConfigError(f"eval.data: {error}", error.argument) from error
    length = getattr(source, "steps_per_epoch", getattr(source, "num_steps", None))
    wanted = options.batches or length or DEFAULT
    if length is not None and wanted > length:
        refused = ArgumentError("batches", wanted, f"there are {length} held-out batches", f"1..{length}")
        raise ConfigError(refused.at("eval.batches"), refused)
    return Evaluation(options, source, wanted)


def check_evaluation(
    evaluation: Evaluation,
    inputs_of: Callable[[Batch], tuple[Tensors, Tensors]],
    shapes: Shapes,
    model: nn.Module,
    modules: Sequence[nn.Module],
    num_processes: int,
    num_microbatches: int,
) -> None:
    """Refuse held-out batches of another shape than the training's, and stages that have no evaluation mode.

    Raises:
        ConfigError: one line.
    """
    try:
        inputs, judged = inputs_of(evaluation.batch(0))
    except Exception as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"eval.data: {first_line(error)}") from error
    try:
        shapes.find(0, (*inputs, *judged), num_processes, num_microbatches)
    except ConfigError as error:
        raise ConfigError(f"eval.{error}") from error
    rows = len(judged[0]) // num_microbatches
    example = tuple(tensor[:rows] for tensor in inputs)
    twin, stages = copies([model]), copies(list(modules))
    try:
        with evaluating([*twin, *stages]):
            same = same_bits(run(twin, example), run(stages, example))
    except Exception as error:
        raise ConfigError(
            f"eval.every={evaluation.options.every}: the stages have no evaluation mode: {first_line(error)}; "
            "valid: split=replay, split=modules"
        ) from error
    if not same:
        raise ConfigError(
            f"eval.every={evaluation.options.every}: the stages compute something else than the model in evaluation "
            "mode, as a trace of its training mode does; valid: split=replay, split=modules"
        )
