"""A backward in two parts gives the bits of a whole one, whatever the graph looks like."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pipezoo.executors.split_backward import beside_every_input, input_gradient, weight_gradient


class Residual(nn.Module):
    """Layers, a norm, a bias beside the path, and a sum that goes round a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Linear(8, 8), nn.Linear(8, 8), nn.LayerNorm(8)
        self.bias = nn.Parameter(torch.randn(8))

    def forward(self, x: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(self.first(x).relu() + self.bias)
        return self.second(hidden) + hidden


class TwoTowers(nn.Module):
    """The second output depends on parameters and on integers alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.table = nn.Linear(8, 8), nn.Embedding(5, 8)

    def forward(self, x: torch.Tensor, token: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.first(x).tanh(), self.table(token)


class Table(nn.Module):
    """A table that no input leads to is added on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.table = nn.Linear(8, 8), nn.Linear(8, 8), nn.Embedding(5, 8)

    def forward(self, x: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x) * self.table(token))


class Reused(nn.Module):
    """One layer twice: its weight is at two nodes, one behind the other."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        return self.layer(self.layer(x).relu())


class Mixed(nn.Module):
    """Recurrence, attention, convolution and batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(8, 8, 2, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.convolution, self.norm = nn.Conv1d(8, 8, 3, padding=1), nn.BatchNorm1d(8)

    def forward(self, x: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        hidden = self.recurrent(x[:, None].expand(-1, 6, -1))[0]
        hidden = self.attention(hidden, hidden, hidden)[0]
        return self.norm(self.convolution(hidden.transpose(1, 2))).mean(2)


class Recomputed(nn.Module):
    """Activation checkpointing inside the stage."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.utils.checkpoint.checkpoint(lambda y, layer=layer: layer(y).relu(), x, use_reentrant=False)
        return x


def clamp(parameter: torch.Tensor) -> None:
    parameter.grad.clamp_(-0.01, 0.01)


class Hooked(nn.Module):
    """Hooks on what arrives, on a value between, and on a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.hooked = nn.Linear(8, 8), nn.Linear(8, 8), False

    def forward(self, x: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
        if not self.hooked:  # not in __init__: a copy of a parameter has no hooks
            self.first.weight.register_hook(lambda gradient: gradient * 3)
            self.second.weight.register_post_accumulate_grad_hook(clamp)
            self.hooked = True
        x.register_hook(lambda gradient: gradient / 2)
        hidden = self.first(x)
        hidden.register_hook(lambda gradient: gradient * 0.7)
        return self.second(hidden.relu())


GRAPHS = [Residual, TwoTowers, Table, Reused, Mixed, Recomputed, Hooked]


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.__name__)
def test_input_and_weight_gradients_have_the_bits_of_a_full_backward(graph: type[nn.Module]) -> None:
    torch.manual_seed(0)
    whole = graph()
    halves = copy.deepcopy(whole)
    x, token = torch.randn(4, 8), torch.tensor([0, 1, 4, 1])
    arrived = None
    given, outputs = [], []
    for module in (whole, halves):
        leaf = x.clone().requires_grad_()
        result = module(leaf, token)
        ends = list(result) if isinstance(result, tuple) else [result]
        arrived = arrived or [torch.randn_like(end) for end in ends]
        given.append(leaf)
        outputs.append(ends)
    assert arrived is not None

    torch.autograd.backward(outputs[0], arrived)
    found, later = input_gradient(outputs[1], arrived, [given[1]])

    assert torch.equal(found[0], given[0].grad)
    assert all(parameter.grad is None for parameter in halves.parameters()), "I touches no parameter"
    weight_gradient(later)
    for (name, one), (_, other) in zip(whole.named_parameters(), halves.named_parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), name
    assert later == []


def test_what_learns_alone_is_left_to_W_whole() -> None:
    table = nn.Embedding(3, 4)
    output = table(torch.tensor([0, 2]))

    found, later = input_gradient([output], [torch.ones_like(output)], [])

    assert found == []
    assert table.weight.grad is None
    weight_gradient(later)
    assert table.weight.grad.sum(1).tolist() == [4.0, 0.0, 4.0]


def test_an_input_that_nothing_depends_on_has_no_gradient() -> None:
    layer, unused = nn.Linear(4, 4), torch.ones(2, 4, requires_grad=True)
    used = torch.ones(2, 4, requires_grad=True)
    output = layer(used)

    found, _ = input_gradient([output], [torch.ones_like(output)], [used, unused])

    assert found[0] is not None
    assert found[1] is None


def test_a_node_without_a_parameter_beside_it_runs_once() -> None:
    ran = []

    class Watched(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, value: torch.Tensor) -> torch.Tensor:
            return value.clone()

        @staticmethod
        def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
            ran.append("I" if not ran else "again")
            return gradient

    layer, x = nn.Linear(4, 4), torch.randn(2, 4, requires_grad=True)
    output = Watched.apply(layer(x))
    _, later = input_gradient([output], [torch.ones_like(output)], [x])
    weight_gradient(later)
    assert ran == ["I"]


def test_what_no_input_leads_to_is_told_from_what_is_only_beside_the_path() -> None:
    x = torch.randn(4, 8, requires_grad=True)
    token = torch.tensor([0, 1, 4, 1])
    towers, table = TwoTowers(), Table()

    assert beside_every_input(list(towers(x, token)), [x]) == [towers.table.weight]
    assert beside_every_input([table(x, token)], [x]) == []
