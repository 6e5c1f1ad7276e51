"""The loss on held-out batches: the forwards of any schedule, in evaluation mode, with nothing kept for a backward.

    training    1RECV_F0 1F0 1SEND_F0 1RECV_B0 1B0 1SEND_B0 ...
    evaluation  1RECV_F0 1F0 1SEND_F0                       ...       the same order without the rest

Messages go through a transport of their own, so they cannot mix with those of the training. The loss is told to every
rank, for all must save and stop together. One device computes it too, microbatch by microbatch: equal bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import nn

from pipezoo.data.batch import Batch
from pipezoo.experiment.evaluation import EvalOptions, History
from pipezoo.runtime.mesh import gathered
from pipezoo.runtime.microbatching import ScaledLoss, Tensors, microbatches, total
from pipezoo.runtime.randomness import leaving_no_trace
from pipezoo.schedule.action import Action, Op

if TYPE_CHECKING:
    from pipezoo.runtime.executor import RankExecutor
    from pipezoo.runtime.shares import Shares

FORWARD = (Op.F, Op.SEND_F, Op.RECV_F)
NUMBER = "eval_loss"  # what it is called among the numbers of a step
BatchOfRank = Callable[[int], "Shares"]


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated.

    Args:
        batch: the held-out batches, by their number.
        num_batches: how many.
    """

    options: EvalOptions
    batch: Callable[[int], Batch]
    num_batches: int

    def follows(self, step: int) -> bool:
        return self.options.every is not None and (step + 1) % self.options.every == 0

    def history(self, known: Iterable[tuple[int, float]]) -> History:
        """What is known of a run so far, steps and loss of each evaluation."""
        history = History(self.options)
        for steps, loss in known:
            history.hear(steps, loss)
        return history


def forward_only(actions: Sequence[Action]) -> list[Action]:
    """What remains of a rank's actions where nothing goes backwards."""
    return [action for action in actions if action.op in FORWARD]


@contextmanager
def evaluating(modules: Iterable[nn.Module]) -> Iterator[None]:
    """In evaluation mode; afterwards every module is in the mode that it was in."""
    tops = list(modules)
    before = [(module, module.training) for top in tops for module in top.modules()]
    modes = [top.training for top in tops]
    try:
        for top in tops:
            top.eval()
        with torch.no_grad(), leaving_no_trace():
            yield
    finally:
        for top, mode in zip(tops, modes, strict=True):
            top.train(mode)
        for module, mode in before:
            module.training = mode


def evaluate(
    evaluation: Evaluation, modules: Iterable[nn.Module], executor: RankExecutor, loss: ScaledLoss, batch: BatchOfRank
) -> list[list[float]]:
    """``[num_batches][num_shares]``: the loss of each share of each held-out batch, where the last stage is."""
    losses = []
    with evaluating(modules):
        for number in range(evaluation.num_batches):
            of_rank = batch(number)
            with loss.batch(of_rank.target):
                found = [executor.step(inputs, target) for inputs, target in of_rank.rows]
            losses += [[total(share).item() for share in found]] if all(found) else []
    return losses


def told_to_all(
    losses: Sequence[Sequence[float]], sources: Sequence[int], num_batches: int, num_shares: int, device: torch.device
) -> float:
    """The mean over the batches, on every process.

    Args:
        losses: as :func:`evaluate` gave them.
        sources: the processes that have some, in the order of the shares.
    """
    own = num_shares // len(sources)
    mine = torch.tensor(losses or [[0.0] * own] * num_batches, dtype=torch.float64, device=device)
    every = gathered(mine, dist.group.WORLD)
    return mean([sum(of_batch) for of_batch in torch.cat([every[source] for source in sources], dim=1).tolist()])


def on_one_device(
    evaluation: Evaluation,
    model: nn.Module,
    loss: ScaledLoss,
    num_shares: int,
    num_microbatches: int,
    batch: Callable[[int], tuple[Tensors, torch.Tensor]],
) -> float:
    """The same of an unsplit model, which takes the shares of a batch one after the other."""
    losses = []
    with evaluating([model]):
        for number in range(evaluation.num_batches):
            inputs, target = batch(number)
            cut = microbatches((*inputs, target), num_shares * num_microbatches)
            with loss.batch(target):
                found = [loss(model(*args), part) for *args, part in cut]
            starts = range(0, len(found), num_microbatches)
            losses.append(sum(total(found[start : start + num_microbatches]).item() for start in starts))
    return mean(losses)


def mean(losses: Sequence[float]) -> float:
    return sum(losses) / len(losses)
