"""Perceptrons that can put off their weight gradients: the backward split in two by the module itself.

After `toggle()` a backward computes the gradient of the input only, and remembers per linear layer what the
weight gradient needs. `compute_dW()` then does the oldest remembered microbatch:

    backward 0   backward 1            compute_dW()          compute_dW()
    remember 0   remember 0, 1         .grad += dW of 0      .grad += dW of 1

Zero-bubble schedules (Qi et al., Zero Bubble Pipeline Parallelism, ICLR 2024) fill idle time with the second half.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from pipezoo.models._split_spec import CutBeforeEach
from pipezoo.validators import check_int


class CustomLinearDx(Function):
    """Linear layer whose backward gives the input gradient and leaves the weight gradient to `module`.

    `apply(input, weight, bias, module, layer_idx)` with input [rows, in], weight [out, in], bias [out]. The
    backward appends to `module.cached_context`: the output gradient under `layer_idx`, the input under
    `f"{layer_idx}_input"`.
    """

    @staticmethod
    def forward(ctx: Any, input_val: Tensor, weight: Tensor, bias: Tensor, module: nn.Module, layer_idx: str) -> Tensor:
        ctx.save_for_backward(input_val, weight)
        ctx.module, ctx.layer_idx = module, layer_idx
        return input_val.mm(weight.t()) + bias

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input_val, weight = ctx.saved_tensors
        cached = ctx.module.cached_context
        cached[ctx.layer_idx].append(grad_output.clone())
        cached[f"{ctx.layer_idx}_input"].append(input_val.clone())
        return grad_output.mm(weight), None, None, None, None


class CustomLinearDxDw(Function):
    """Linear layer with its full backward: `apply(input, weight, bias)`, shapes as in CustomLinearDx."""

    @staticmethod
    def forward(ctx: Any, input_val: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(input_val, weight)
        return input_val.mm(weight.t()) + bias

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        input_val, weight = ctx.saved_tensors
        return grad_output.mm(weight), grad_output.t().mm(input_val), grad_output.sum(0)


class MLPModuleWithDw(nn.Module):
    """Linear, ReLU, linear on bare parameters; `d_hid` >= 1 features, all values within +-0.001 at first.

    `cached_context` holds what `compute_dW` still has to do, oldest first, under `fc1`, `fc2` (output gradients)
    and `fc1_input`, `fc2_input`.
    """

    def __init__(self, d_hid: int) -> None:
        check_int("d_hid", d_hid, 1)
        super().__init__()
        self.fc1_weight = nn.Parameter(torch.randn(d_hid, d_hid))
        self.fc1_bias = nn.Parameter(torch.randn(d_hid))
        self.fc2_weight = nn.Parameter(torch.randn(d_hid, d_hid))
        self.fc2_bias = nn.Parameter(torch.randn(d_hid))
        # The draws above are overwritten, yet advance the generator: a seed fixes the numbers only with both.
        for parameter in (self.fc1_weight, self.fc2_weight, self.fc1_bias, self.fc2_bias):
            nn.init.uniform_(parameter, -0.001, 0.001)
        self.cached_context: dict[str, list[Tensor]] = {
            "fc1": [], "fc2": [], "fc1_input": [], "fc2_input": []
        }  # fmt: skip
        self.use_custom_logic = False

    def forward(self, x: Tensor) -> Tensor:
        """[rows, d_hid] -> [rows, d_hid]"""
        return self._linear(torch.relu(self._linear(x, "fc1")), "fc2")

    def toggle(self) -> None:
        """Switch between the full backward (at first) and the one that leaves the weights to `compute_dW`."""
        self.use_custom_logic = not self.use_custom_logic

    def compute_dW(self) -> None:
        """Add the weight gradients of the oldest remembered microbatch to `.grad`.

        Raises RuntimeError when nothing is remembered.
        """
        if not self.cached_context["fc1"]:
            raise RuntimeError("compute_dW() has no backward left to complete")
        for layer in ("fc2", "fc1"):
            grad_output = self.cached_context[layer].pop(0)
            input_val = self.cached_context[f"{layer}_input"].pop(0)
            _accumulate(self.get_parameter(f"{layer}_weight"), grad_output.t().mm(input_val))
            _accumulate(self.get_parameter(f"{layer}_bias"), grad_output.sum(0))

    def _linear(self, x: Tensor, layer: str) -> Tensor:
        weight, bias = self.get_parameter(f"{layer}_weight"), self.get_parameter(f"{layer}_bias")
        output: Tensor
        if self.use_custom_logic:
            output = CustomLinearDx.apply(x, weight, bias, self, layer)  # type: ignore[no-untyped-call]
        else:
            output = CustomLinearDxDw.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return output


class MultiMLPWithDw(nn.Module):
    """`layers.0` ... of `n_layers` MLPModuleWithDw; `split_spec` names the cut before every layer but the first.

    Args:
        d_hid: features of input, output and everything between, >= 1.
        n_layers: layers, and thereby the largest number of stages, >= 1.
    """

    split_spec = CutBeforeEach("layers")

    def __init__(self, d_hid: int, n_layers: int = 2) -> None:
        check_int("n_layers", n_layers, 1)
        super().__init__()
        self.layers = nn.ModuleList(MLPModuleWithDw(d_hid) for _ in range(n_layers))
        self.use_custom_logic = False

    def forward(self, x: Tensor) -> Tensor:
        """[rows, d_hid] -> [rows, d_hid]"""
        for layer in self.layers:
            x = layer(x)
        return x

    def toggle(self) -> None:
        """Switch every layer between its two backwards."""
        self.use_custom_logic = not self.use_custom_logic
        for layer in self._dw_layers():
            layer.toggle()

    def compute_dW(self) -> None:
        """Add the weight gradients of the oldest remembered microbatch to `.grad`, last layer first.

        Raises RuntimeError before `toggle()` and when nothing is remembered.
        """
        if not self.use_custom_logic:
            raise RuntimeError("compute_dW() needs toggle() first: the backward still computes the weight gradients")
        for layer in reversed(self._dw_layers()):
            layer.compute_dW()

    def _dw_layers(self) -> list[MLPModuleWithDw]:
        return [layer for layer in self.layers if isinstance(layer, MLPModuleWithDw)]


def _accumulate(parameter: nn.Parameter, gradient: Tensor) -> None:
    if parameter.grad is None:
        parameter.grad = gradient
    else:
        parameter.grad += gradient
