"""Weight gradients that are added by their product: the bits of autograd, and left to it where they would be others."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pipezoo.executors import fused_weights
from pipezoo.executors.fused_weights import LARGE, FusedWeights, add_product, fits
from pipezoo.runtime.autograd_engine import run_backward
from tests.executors.test_deferred_weights import Frozen
from tests.support.experiments import PROCESSES, ending, experiment

SIDE = 512  # 512 * 512 values are LARGE
ROWS, MICROBATCHES = 4, 3


def layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(SIDE, SIDE), nn.ReLU(inplace=True), nn.Linear(SIDE, SIDE, bias=False))


class Reused(nn.Module):
    """One layer twice in every forward, or from the second forward on."""

    def __init__(self, late: bool = False) -> None:
        super().__init__()
        self.layer, self.forwards = nn.Linear(SIDE, SIDE), 0 if late else 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.forwards += 1
        for _ in range(min(self.forwards, 2)):
            x = self.layer(x).tanh()
        return x


class Outside(nn.Module):
    """A weight that is also taken from its layer, and one that another layer has, too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.twin, self.last = (nn.Linear(SIDE, SIDE) for _ in range(3))
        self.twin.weight = self.layer.weight
        self.table = nn.Embedding(SIDE, SIDE)
        self.last.weight = self.table.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.linear(self.twin(self.layer(x).relu()), self.layer.weight).tanh()
        return self.last(x + self.table(torch.arange(len(x))).reshape(x.shape))


class OutsideLater(nn.Module):
    """Takes a weight from its layer in the last microbatches alone: by one way more, or by as many as ever."""

    def __init__(self, penalty: bool) -> None:
        super().__init__()
        self.first, self.second, self.forwards, self.penalty = nn.Linear(SIDE, SIDE), nn.Linear(SIDE, SIDE), 0, penalty

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.forwards += 1
        late = self.forwards > MICROBATCHES + 1
        if not self.penalty:
            weight = self.first.weight if late else self.second.weight
            return F.linear(self.first(x).tanh(), weight)
        x = x if x.requires_grad else x.clone().requires_grad_()
        y = self.second(self.first(x).tanh())
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=late, retain_graph=True)
        return y + slope.square()


class ByName(nn.Module):
    """Layers called as torch's may be, and one with a forward of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(SIDE, SIDE), nn.Linear(SIDE, SIDE)
        self.second.forward = lambda x: F.linear(x, self.second.weight.tanh())  # type: ignore[method-assign]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(input=x).tanh())


class InPlace(nn.Module):
    """Changes what a layer returns."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(SIDE, SIDE), nn.Linear(SIDE, SIDE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu_(self.first(torch.stack([x, x.cos()], 1)))
        x = self.second(x[:, None])
        x[..., :4].mul_(2)
        return x.sum((1, 2))


class HookedNode(nn.Module):
    """As some do who reduce gradients: hooks on what adds to ``.grad``."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.node = nn.Linear(SIDE, SIDE), None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.node is None:
            self.node: Any = torch.autograd.graph.get_gradient_edge(self.layer.weight).node
            self.node.register_prehook(lambda grads: tuple(grad * 0.5 for grad in grads))
        out: torch.Tensor = self.layer(x)
        return out


class Inner(torch.autograd.Function):
    """A graph inside of a node, as reversible layers have."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: nn.Module, count: int) -> torch.Tensor:  # type: ignore[override]
        with torch.enable_grad():
            ctx.x = x.detach().requires_grad_()
            ctx.y, ctx.layer = layer(ctx.x), layer
        found: torch.Tensor = ctx.y.detach()
        return found

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        of_input, of_weight = torch.autograd.grad(ctx.y, [ctx.x, ctx.layer.weight], dy)
        ctx.layer.weight.grad = of_weight if ctx.layer.weight.grad is None else ctx.layer.weight.grad + 2 * of_weight
        return of_input, None, None


class GraphInside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.layer = nn.Linear(SIDE, SIDE), nn.Linear(SIDE, SIDE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = Inner.apply(self.first(x), self.layer, 1)  # type: ignore[no-untyped-call]
        return found


class Sequences(nn.Module):
    """Three dimensions, and rows that are not contiguous."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.turned, self.bare = nn.Linear(SIDE, SIDE), nn.Linear(SIDE, SIDE), nn.Linear(SIDE, SIDE, False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bare(self.one(torch.stack([x, x.cos()], 1)).relu())
        return self.turned(x.transpose(0, 1)).sum(0)


class Hooked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(SIDE, SIDE), nn.Linear(SIDE, SIDE)
        self.first.weight.register_hook(lambda grad: grad * 0.5)
        self.second.register_full_backward_hook(lambda *_: None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).relu())


class Recomputed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.layers, self.after, self.reentrant = layers(), nn.Linear(SIDE, SIDE), reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = checkpoint(self.layers, self.after(x), use_reentrant=self.reentrant)
        return self.after(found)


class Recurrent(nn.Module):
    """Weights that no layer of ours holds."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.parameter = nn.LSTM(SIDE, SIDE), nn.Parameter(torch.randn(SIDE, SIDE) / SIDE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.cell(x @ self.parameter)[0]
        return out


class Penalised(nn.Module):
    """Asks for a gradient in its forward, and learns from it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = layers()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x if x.requires_grad else x.clone().requires_grad_()
        y = self.layers(x).square()
        (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        return y + slope.square()


class Transformed(nn.Module):
    """Runs its layers under torch.func, and with forward-mode derivatives."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.last = nn.Linear(SIDE, SIDE), nn.Linear(SIDE, SIDE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.func.vmap(self.layers)(x) + torch.func.jvp(self.layers, (x,), (x,))[1]
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(x, torch.ones_like(x))
            y = y + forward_ad.unpack_dual(self.layers(dual)).tangent
        return self.last(y)


def traced() -> nn.Module:
    program = torch.export.export(layers(), (torch.randn(ROWS, SIDE),))
    module: nn.Module = program.module()
    assert isinstance(module, fx.GraphModule)
    return module


KINDS: dict[str, Callable[[], nn.Module]] = {
    "layers": layers,
    "reused": Reused,
    "reused later": lambda: Reused(late=True),
    "outside": Outside,
    "outside later, twice": lambda: OutsideLater(penalty=False),
    "outside later, in a penalty": lambda: OutsideLater(penalty=True),
    "called by name": ByName,
    "changed in place": InPlace,
    "hooks on a node": HookedNode,
    "a graph inside": GraphInside,
    "sequences": Sequences,
    "hooked": Hooked,
    "frozen": lambda: Frozen(SIDE),
    "recomputed": lambda: Recomputed(reentrant=False),
    "recomputed, reentrant": lambda: Recomputed(reentrant=True),
    "recurrent": Recurrent,
    "traced": traced,
    "penalised": Penalised,
    "transformed": Transformed,
    "float64": lambda: layers().double(),
    "bfloat16": lambda: layers().bfloat16(),
}


def fused_step(module: nn.Module, fused: FusedWeights | None, batches: list[Any], learns: bool) -> list[torch.Tensor]:
    """One forward and backward a microbatch, the forwards one ahead; the gradients of what arrived."""
    ahead: list[Any] = []
    leaves = []
    for x, dy in batches:
        leaf = x.clone().requires_grad_(learns)
        output = module(leaf)
        if fused is not None:
            fused.allow([output])
        leaves.append(leaf)
        ahead.append((output, dy))
        if len(ahead) > 1:
            output, dy = ahead.pop(0)
            run_backward((output,), (dy,))
    run_backward((ahead[0][0],), (ahead[0][1],))
    return [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("learns", [True, False], ids=["input learns", "first stage"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_bits_are_those_of_autograd(kind: str, learns: bool) -> None:
    if kind == "recomputed, reentrant" and not learns:
        pytest.skip("torch wants an input that learns")
    torch.manual_seed(0)
    plain = KINDS[kind]()
    torch.manual_seed(0)
    ours = KINDS[kind]()
    ours.load_state_dict(plain.state_dict())
    dtype = next(ours.parameters()).dtype
    fused = FusedWeights.of(ours)
    for _ in range(2):  # updates
        batches = [[torch.randn(ROWS, SIDE, dtype=dtype) for _ in range(2)] for _ in range(MICROBATCHES)]
        for module in (plain, ours):
            module.zero_grad()
        expected = fused_step(plain, None, batches, learns)
        found = fused_step(ours, fused, batches, learns)
        assert not learns or all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
        for (name, a), b in zip(plain.named_parameters(), ours.parameters(), strict=True):
            assert (a.grad is None) == (b.grad is None), name
            assert a.grad is None or torch.equal(a.grad, b.grad), name


def test_a_large_layer_is_added_without_a_tensor_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    added = []
    monkeypatch.setattr(fused_weights, "add_product", lambda *given: added.append(given) or add_product(*given))
    module = nn.Sequential(nn.Linear(SIDE, SIDE), nn.Linear(SIDE, 4), nn.Linear(4, SIDE))
    fused = FusedWeights.of(module)
    batches = [[torch.randn(ROWS, SIDE) for _ in range(2)] for _ in range(MICROBATCHES)]
    fused_step(module, fused, batches, True)
    assert [weight is module[0].weight for weight, _, _ in added] == [True] * MICROBATCHES  # the first finds nothing


def test_a_stage_without_large_layers_is_left_alone() -> None:
    assert FusedWeights.of(nn.Sequential(nn.Linear(8, 8), nn.Conv2d(64, 64, 8))) is None


def test_a_stage_that_is_wired_for_several_shapes_is_changed_once() -> None:
    module = layers()
    assert FusedWeights.of(nn.Sequential(module)) is FusedWeights.of(module)


def test_a_product_over_more_rows_than_blas_takes_at_once_is_tried_first() -> None:
    """Whatever the library does: where the answer is yes, the bits are equal."""
    for rows in (1, 32, 192, 256, 1000):
        weight = nn.Parameter(torch.zeros(SIDE, SIDE))
        weight.grad = before = torch.randn(SIDE, SIDE)
        dy, x = torch.randn(rows, SIDE), torch.randn(rows, SIDE)
        expected = before + dy.t().mm(x)
        assert add_product(weight, dy, x) == fits(weight, rows)
        assert not fits(weight, rows) or torch.equal(weight.grad, expected), rows


def test_a_small_weight_is_not_worth_a_call() -> None:
    assert not fits(nn.Parameter(torch.zeros(LARGE // 256, 255)), 4)


class Stack(nn.Sequential):
    """Large layers between narrow ones."""

    def __init__(self) -> None:
        super().__init__(
            nn.Linear(8, SIDE), nn.Linear(SIDE, SIDE), nn.Tanh(), nn.Linear(SIDE, SIDE), nn.Linear(SIDE, 8)
        )


@pytest.mark.parametrize("launch", [{}, PROCESSES], ids=["virtual", "processes"])
def test_a_run_is_exact(tmp_path: Path, launch: dict[str, Any]) -> None:
    assert ending(experiment(Stack, num_stages=2, num_microbatches=4, **launch), tmp_path) == (0, "exact")


@pytest.mark.parametrize(
    "broken",
    [
        lambda weight, dy, x: weight.grad is not None,
        lambda weight, dy, x: add_product(weight, dy, x) and add_product(weight, dy, x),
        lambda weight, dy, x: add_product(weight, dy, 2 * x),
    ],
    ids=["forgotten", "added twice", "of something else"],
)
def test_a_broken_product_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: Any) -> None:
    monkeypatch.setattr(fused_weights, "add_product", broken)
    code, line = ending(experiment(Stack, num_stages=2, num_microbatches=4), tmp_path)
    assert (code, "1.weight after step 1 (stage 0)" in line) == (3, True)


def test_what_nobody_may_touch_is_copied_with_its_model() -> None:
    """The layers of a copied stage run their own weights."""
    module = layers()
    FusedWeights.of(module)
    twin = copy.deepcopy(module)
    with torch.no_grad():
        twin[0].weight.zero_()
    x = torch.randn(ROWS, SIDE)
    assert not torch.equal(twin(x), module(x))
