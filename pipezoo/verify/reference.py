"""The same training on one device, without a pipeline: the numbers that a run is held against.

    fresh model, same seed      for every microbatch, in the schedule's order:  loss(model(x), t).backward()

Floating-point sums depend on their order, so the gradients are accumulated in the order in which the schedule
accumulates them: per stage, the order of its B (or W) actions. With that, a correct pipeline agrees bit for bit.
The sums of tied parameters are those of ``tied_gradients.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipezoo.data.batch import Batch
from pipezoo.runtime.draws import Draws, NoDraws
from pipezoo.runtime.evaluation import NUMBER, Evaluation, on_one_device
from pipezoo.runtime.feed import begin
from pipezoo.runtime.microbatching import LossFunction, ScaledLoss, Tensors, microbatches, scaled, total
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.restore import restore_optimizer
from pipezoo.runtime.stages import inputs_of, to_dtype
from pipezoo.schedule.action import Op
from pipezoo.verify.compare import Difference, compare
from pipezoo.verify.tied_gradients import TiedGradients

Values = dict[str, torch.Tensor | None]


@dataclass(frozen=True)
class Reference:
    """What one device computed.

    Args:
        losses: ``[steps][num_microbatches + 1]``: the scaled loss of every microbatch, and last their total.
        gradients: of the first step, by the parameter's name; None where the model did not use it.
        last: parameters and buffers after the last step.
        numbers: of each step, what it came to besides, by name: ``grad_norm``.
        tied_parameters: in each step, how far the gradient of each tied parameter is from the sum of its stages' parts.
    """

    losses: list[list[float]]
    gradients: Values
    last: Values
    numbers: list[dict[str, float]]
    tied_parameters: list[Difference]


def train_on_one_device(pipeline: Pipeline, beat: Callable[[int], None]) -> Reference:
    """Train a fresh model; ``beat(step)`` is called before each step."""
    device = pipeline.rank_device(0)
    model = pipeline.fresh_model().to(device)
    loss = scaled(pipeline.loss.to(device), pipeline.schedule.num_microbatches)
    optimizer = pipeline.optimizer([p for p in model.parameters() if p.requires_grad])
    if pipeline.saved is not None:
        restore_optimizer(optimizer, model.named_parameters(), pipeline.saved)
    groups = _accumulation_orders(pipeline, model)
    forwards = pipeline.schedule.microbatches_in_order(0, Op.F)
    draws = pipeline.drawing.in_model(pipeline.seed, model, pipeline.loss) if pipeline.drawing else NoDraws()
    shares = TiedGradients(pipeline, device)
    history, gradients, tied_parameters = [], {}, []
    numbers: list[dict[str, float]] = []
    begin(pipeline.batch)
    for step in pipeline.steps_to_do:
        beat(step)
        optimizer.zero_grad(set_to_none=True)
        inputs, target = batch_on(device, pipeline, model, step)
        cut = microbatches((*inputs, target), pipeline.schedule.num_microbatches)
        draws.step = step
        with loss.batch(target):
            tied = shares.gradients(model, cut, loss, step)
            losses = _backward(model, loss, cut, forwards, groups, draws)
        history.append([value.item() for value in (*losses, total(losses))])
        if step == pipeline.steps_to_do.start:
            gradients = {
                n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters() if p.requires_grad
            }
        parameters = dict(model.named_parameters())
        for name, gradient in tied.items():
            tied_parameters.append(
                compare(f"gradient of {name} in step {step}, by stages", None, gradient, parameters[name].grad)
            )
            parameters[name].grad = gradient
        numbers.append({})
        if pipeline.recipe.clip is not None:
            norm = nn.utils.clip_grad_norm_(model.parameters(), pipeline.recipe.clip, foreach=False)
            numbers[-1]["grad_norm"] = norm.item()
        optimizer.step()
        if pipeline.evaluation is not None and pipeline.evaluation.follows(step):
            numbers[-1][NUMBER] = _evaluate(pipeline, pipeline.evaluation, device, model, loss)
    last: Values = {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    return Reference(history, gradients, last, numbers, tied_parameters)


def _evaluate(
    pipeline: Pipeline, evaluation: Evaluation, device: torch.device, model: nn.Module, loss: ScaledLoss
) -> float:
    def batch(number: int) -> tuple[Tensors, torch.Tensor]:
        return _on(device, pipeline, model, evaluation.batch(number))

    return on_one_device(evaluation, model, loss, pipeline.schedule.num_microbatches, batch)


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
    model: nn.Module,
    loss: LossFunction,
    cut: Sequence[Tensors],
    forwards: list[int],
    groups: list[tuple[list[int], list[nn.Parameter]]],
    draws: Draws | NoDraws,
) -> list[torch.Tensor]:
    """All microbatches forwards and backwards, each with its random numbers; the scaled losses by microbatch."""

    def forward(index: int) -> torch.Tensor:
        with draws.at(index):
            return loss(model(*cut[index][:-1]), cut[index][-1])

    def backward(index: int, **more: Any) -> None:
        with draws.again(index):
            losses[index].backward(**more)  # type: ignore[no-untyped-call]

    if [order for order, _ in groups] == [forwards]:
        losses = {}
        for index in forwards:
            losses[index] = forward(index)
            backward(index)
    else:
        losses = {index: forward(index) for index in forwards}
        for number, (order, parameters) in enumerate(groups, start=1):
            for index in order:
                backward(index, inputs=parameters, retain_graph=number < len(groups))
    return [losses[index].detach() for index in sorted(losses)]


def batch_on(device: torch.device, pipeline: Pipeline, model: nn.Module, step: int) -> tuple[Tensors, torch.Tensor]:
    """The model's inputs and the target of a whole batch, on ``device``."""
    return _on(device, pipeline, model, pipeline.batch(step))


def _on(device: torch.device, pipeline: Pipeline, model: nn.Module, batch: Batch) -> tuple[Tensors, torch.Tensor]:
    inputs = tuple(tensor.to(device) for tensor in inputs_of(model, batch, pipeline.dtype))
    return inputs, to_dtype(batch.target, pipeline.dtype).to(device)
