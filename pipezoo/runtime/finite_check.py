"""NaN and infinity, found in the step in which they appear: in losses, gradients and parameters.

    forward, backward    losses, then gradients     before the optimizer moves a parameter
    optimizer step       parameters                 before a checkpoint is written

One sum of all values of a rank tells that all is well. Where it is not finite, tensors are looked at one by one.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence

import torch

from pipezoo.errors import NonFiniteError
from pipezoo.runtime.whole import local


class FiniteCheck:
    """What a rank looks at in every step.

    Args:
        what_to_do: ``stop`` raises, ``warn`` says so in the log, ``ignore`` looks at nothing.
        last_stage: of the pipeline.
        stage_of: the stage that a parameter belongs to, by the parameter's name.
        first_step: the first one of this run.
    """

    def __init__(self, what_to_do: str, last_stage: int, stage_of: Mapping[str, int], first_step: int) -> None:
        self._what_to_do, self._last_stage = what_to_do, last_stage
        self._stage_of, self._first_step = stage_of, first_step

    def losses(self, step: int, losses: Sequence[float], first: int = 0) -> None:
        """Raises NonFiniteError for a loss of a microbatch that is NaN or infinite.

        Args:
            first: the place in the batch of the first of them.
        """
        if self._what_to_do == "ignore" or all(map(math.isfinite, losses)):
            return
        bad = next(place for place, loss in enumerate(losses) if not math.isfinite(loss))
        what = f"the loss of microbatch {first + bad} on stage {self._last_stage} is {losses[bad]}"
        self._found(step, what, 0, moved=step > self._first_step)

    def gradients(self, step: int, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        """The same for gradients, before the optimizer's step."""
        gradients = {name: local(p.grad) for name, p in parameters.items() if p.grad is not None}
        self._tensors(step, "gradient", gradients, moved=step > self._first_step)

    def norm(self, step: int, norm: float) -> None:
        """The same for the norm of all gradients, which may overflow where each of them is finite."""
        if self._what_to_do != "ignore" and not math.isfinite(norm):
            what = f"the norm of all gradients is {norm}, so clipping would make them zero or nan"
            self._found(step, what, 1 + self._last_stage + len(self._stage_of), moved=step > self._first_step)

    def parameters(self, step: int, parameters: Mapping[str, torch.nn.Parameter]) -> None:
        """The same for parameters, after it."""
        self._tensors(step, "parameter", {name: local(p.detach()) for name, p in parameters.items()}, moved=True)

    def _tensors(self, step: int, kind: str, tensors: Mapping[str, torch.Tensor], moved: bool) -> None:
        if self._what_to_do == "ignore" or _all_finite(tensors.values()):
            return
        for name, tensor in tensors.items():
            values = tensor.coalesce().values() if tensor.is_sparse else tensor
            if not bool(torch.isfinite(values).all()):
                worst = "nan" if bool(torch.isnan(values).any()) else "infinite"
                stage = self._stage_of[name]
                behind = 1 + self._last_stage - stage + (len(self._stage_of) + self._last_stage) * (kind == "parameter")
                self._found(step, f"the {kind} {name} on stage {stage} is {worst}", behind, moved)
                return

    def _found(self, step: int, what: str, precedence: int, moved: bool) -> None:
        if self._what_to_do == "warn":
            print(f"warning: step {step}: {what}", file=sys.stderr)
            return
        advice = "a smaller optimizer.lr may help; " if moved else ""
        raise NonFiniteError(f"step {step}: {what}; {advice}on_nonfinite=warn goes on", precedence)


def _all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether a sum over all of them is finite. False also where large finite values overflow it.

    A norm of many tensors is one kernel on a GPU; on a CPU it takes seven times as long as their sums.
    """
    dense = [tensor for tensor in tensors if not tensor.is_sparse and tensor.numel()]
    if not dense:
        return True
    if any(not (t.is_floating_point() or t.is_complex()) or t.dtype.itemsize < 2 for t in dense):
        return False
    if dense[0].device.type != "cpu":
        return bool(torch.isfinite(torch.nn.utils.get_total_norm(dense)))
    return all(math.isfinite(abs(_sum(tensor).item())) for tensor in dense)


def _sum(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.sum(dtype=torch.float32) if tensor.dtype.itemsize == 2 else tensor.sum()
