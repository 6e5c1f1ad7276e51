"""The same training on one device, without a pipeline: the numbers that a run is held against.

    fresh model, same seed      for every microbatch, in the schedule's order:  loss(model(x), t).backward()

Floating-point sums depend on their order, so the gradients are accumulated in the order in which the schedule
accumulates them: per stage, the order of its B (or W) actions. With that, a correct pipeline agrees bit for bit.
The sums of tied parameters are those of ``tied_gradients.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipezoo.data.batch import Batch
from pipezoo.runtime.draws import Draws, NoDraws
from pipezoo.runtime.evaluation import NUMBER, Evaluation, on_one_device
from pipezoo.runtime.feed import begin
from pipezoo.runtime.judged import judged_by
from pipezoo.runtime.microbatching import ScaledLoss, Tensors, microbatches, of_batch, scaled, total
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.stages import inputs_of
from pipezoo.schedule.action import Op
from pipezoo.verify.compare import Difference, compare
from pipezoo.verify.one_device_step import OneDeviceStep, Values
from pipezoo.verify.shares import GradientsByShare
from pipezoo.verify.tied_gradients import TiedGradients


@dataclass(frozen=True)
class Reference:
    """What one device computed.

    Args:
        losses: ``[steps][num_microbatches + 1]``: the scaled loss of every microbatch, and last their total.
        gradients: of the first step, by the parameter's name; None where the model did not use it.
        last: parameters and buffers after the last step.
        numbers: of each step, what it came to besides, by name: ``grad_norm``.
        tied_parameters: in each step, how far the gradient of each tied parameter is from the sum of its stages' parts.
        averages: the moving averages of what the optimizer moves, by name, where somebody asks for them.
    """

    losses: list[list[float]]
    gradients: Values
    last: Values
    numbers: list[dict[str, float]]
    tied_parameters: list[Difference]
    averages: dict[str, torch.Tensor]


def train_on_one_device(pipeline: Pipeline, beat: Callable[[int], None]) -> Reference:
    """Train a fresh model; ``beat(step)`` is called before each step."""
    device, recipe = pipeline.rank_device(0), pipeline.recipe
    model = pipeline.fresh_model().to(device)
    loss, size = scaled(pipeline.loss.to(device), pipeline.num_slices), pipeline.schedule.num_microbatches
    device_step = OneDeviceStep(pipeline, model, device)
    groups = _accumulation_orders(pipeline, model)

    def loss_of(index: int) -> torch.Tensor:
        *inputs, target = cut[index]
        with pipeline.autocast():
            return loss(model(*inputs), target)

    forwards = pipeline.schedule.microbatches_in_order(0, Op.F)
    draws = pipeline.drawing.in_model(pipeline.seed, model, pipeline.loss) if pipeline.drawing else NoDraws()
    tied, shares = TiedGradients(pipeline, device), GradientsByShare(model, pipeline.mesh.dp)
    history, tied_parameters = [], []
    gradients: Values = {}
    numbers: list[dict[str, float]] = []
    begin(pipeline.batch)
    for step in pipeline.steps_to_do:
        beat(step)
        if step % recipe.accumulate == 0:
            device_step.begin()
            shares.begin()
            tied.begin()
        inputs, target = batch_on(device, pipeline, model, step)
        cut = microbatches((*inputs, target), pipeline.num_slices)
        draws.step = step
        with loss.batch(target, device_step.loss_factor):
            of_shares = []
            for share in range(pipeline.mesh.dp):
                first = share * size
                tied.add(share, model, cut[first : first + size], loss, step, device_step.end_of)
                with shares.of(share):
                    losses = _backward(loss_of, device_step.end_of, first, forwards, groups, draws)
                of_shares.append([value.item() for value in (*losses, total(losses))])
        history.append(of_batch(of_shares))
        numbers.append({})
        if (step + 1) % recipe.accumulate == 0:
            shares.add_up()
            tied_parameters += _take(tied.gradients(), model, step)
            gradients = device_step.finish(numbers[-1], keeps=not gradients) or gradients
        if pipeline.evaluation is not None and pipeline.evaluation.follows(step):
            with device_step.averaged() if pipeline.evaluation.options.weights == "ema" else nullcontext():
                numbers[-1][NUMBER] = _evaluate(pipeline, pipeline.evaluation, device, model, loss)
            device_step.hear(numbers[-1][NUMBER])
    last: Values = {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    return Reference(history, gradients, last, numbers, tied_parameters, device_step.averages)


def _take(tied: dict[str, torch.Tensor], model: nn.Module, step: int) -> list[Difference]:
    """Give tied parameters the sums of the pipeline; how far each is from that of the unsplit model."""
    found, parameters = [], dict(model.named_parameters())
    for name, gradient in tied.items():
        title = f"gradient of {name} in step {step}, by stages"
        found.append(compare(title, None, gradient, parameters[name].grad))
        parameters[name].grad = gradient
    return found


def _evaluate(
    pipeline: Pipeline, evaluation: Evaluation, device: torch.device, model: nn.Module, loss: ScaledLoss
) -> float:
    def batch(number: int) -> tuple[Tensors, torch.Tensor]:
        return _on(device, pipeline, model, evaluation.batch(number))

    with pipeline.autocast():
        counts = pipeline.mesh.dp, pipeline.schedule.num_microbatches
        return on_one_device(evaluation, model, loss, *counts, batch)


def _accumulation_orders(pipeline: Pipeline, model: nn.Module) -> list[tuple[list[int], list[nn.Parameter]]]:
    """The parameters, grouped by the order of microbatches in which their stage adds up their gradients."""
    order_of: dict[str, tuple[int, ...]] = {}
    for stage in reversed(range(pipeline.stages.num_stages)):
        order = tuple(pipeline.schedule.microbatches_in_order(stage, Op.B, Op.W))
        order_of.update(dict.fromkeys(pipeline.stages.parameters(stage), order))
    groups: dict[tuple[int, ...], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if name in order_of and parameter.requires_grad:
            groups.setdefault(order_of[name], []).append(parameter)
    return [(list(order), parameters) for order, parameters in groups.items()]


def _backward(
    loss_of: Callable[[int], torch.Tensor],
    end_of: Callable[[torch.Tensor], torch.Tensor],
    first: int,
    forwards: list[int],
    groups: list[tuple[list[int], list[nn.Parameter]]],
    draws: Draws | NoDraws,
) -> list[torch.Tensor]:
    """The microbatches of a share forwards and backwards, each with its random numbers; the scaled losses by
    microbatch.

    Args:
        first: the place in the batch of the first microbatch of the share.
    """
    losses, ends = {}, {}
    forwards = [first + index for index in forwards]
    groups = [([first + index for index in order], parameters) for order, parameters in groups]

    def forward(index: int) -> None:
        with draws.at(index):
            losses[index] = loss_of(index)
        ends[index] = end_of(losses[index])

    def backward(index: int, **more: Any) -> None:
        with draws.again(index):
            ends[index].backward(**more)  # type: ignore[no-untyped-call]

    if [order for order, _ in groups] == [forwards]:
        for index in forwards:
            forward(index)
            backward(index)
    else:
        for index in forwards:
            forward(index)
        for number, (order, parameters) in enumerate(groups, start=1):
            for index in order:
                backward(index, inputs=parameters, retain_graph=number < len(groups))
    return [losses[index].detach() for index in sorted(losses)]


def batch_on(device: torch.device, pipeline: Pipeline, model: nn.Module, step: int) -> tuple[Tensors, torch.Tensor]:
    """The model's inputs and the target of a whole batch, on ``device``."""
    return _on(device, pipeline, model, pipeline.batch(step))


def _on(device: torch.device, pipeline: Pipeline, model: nn.Module, batch: Batch) -> tuple[Tensors, torch.Tensor]:
    inputs = tuple(tensor.to(device) for tensor in inputs_of(model, batch, pipeline.dtype))
    return inputs, judged_by(pipeline.loss, model, batch, pipeline.dtype).to(device)
