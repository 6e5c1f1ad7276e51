"""Weight gradients as products in W: the bits of a whole backward, and never a gradient lost or counted twice."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pipezoo.executors.deferred_weights import Deferred
from tests.support.experiments import WIDTH, ending, experiment

ZBV, ZB_H1 = "pipezoo.schedules.zbv.zbv", "pipezoo.schedules.zb_h1.zb_h1"


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv1d(1, 4, 3, padding=1, stride=2, bias=False)
        self.two = nn.Conv2d(2, 4, (3, 1), padding=(1, 0), dilation=(1, 2), groups=2)
        self.three = nn.Conv3d(1, 2, 2, padding=1)
        self.same = nn.Conv1d(2, 2, 3, padding="same")
        self.round = nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.one(x[:, None])  # [rows, 4, WIDTH / 2]
        x = self.two(x.reshape(-1, 2, 2, WIDTH // 2)).flatten(1)
        x = self.three(x.reshape(-1, 1, 2, 2, WIDTH)).flatten(1)
        return self.round(self.same(x.reshape(len(x), 2, -1))).flatten(1)[:, :WIDTH]


class Sequences(nn.Module):
    """Three dimensions; attention and recurrence, whose weights are left to autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.turned = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.attention, self.lstm = nn.MultiheadAttention(WIDTH, 2, batch_first=True), nn.LSTM(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear(torch.stack([x, x + 1, x.cos()], 1))
        x = self.out(x + self.attention(x, x, x)[0])
        turned = self.turned(x.transpose(0, 1))  # is not contiguous
        return self.lstm(turned)[0].sum(0)


class Reused(nn.Module):
    """One layer three times, and its weight once more as a tensor in another layer's place."""

    def __init__(self, outside: bool = False) -> None:
        super().__init__()
        self.layer, self.twin, self.outside = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), outside
        self.twin.bias = self.layer.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(self.layer(self.layer(x).relu()).relu())
        return self.twin(F.linear(x, self.layer.weight) if self.outside else x)


class Frozen(nn.Module):
    """A frozen weight with a bias that learns, the other way round, and neither."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.layers[0].weight.requires_grad_(False)
        self.layers[1].bias.requires_grad_(False)
        self.layers[2].requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x).tanh()
        return x


def _clamp(parameter: torch.Tensor) -> None:
    parameter.grad.clamp_(-0.01, 0.01)


class Hooked(nn.Module):
    """Hooks on a parameter and on modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.first.weight.register_hook(lambda grad: grad * 0.5)
        self.second.bias.register_post_accumulate_grad_hook(_clamp)
        self.second.register_full_backward_hook(lambda *_: None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).relu())


class Beside(nn.Module):
    """A tower that no input leads to, a table that is added on the way, a norm, and a layer that nobody calls."""

    def __init__(self) -> None:
        super().__init__()
        self.tower, self.behind, self.unused = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.table, self.norm = nn.Embedding(3, WIDTH), nn.LayerNorm(WIDTH)
        self.scale = nn.Parameter(torch.randn(WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tower = self.behind(self.tower(torch.ones(WIDTH)[None]) + self.table(torch.tensor([1])))
        return self.norm(self.behind(x) * self.scale + tower)


class Recomputed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(inplace=True), nn.Linear(WIDTH, WIDTH))

    def forward(self, x: torch.Tensor) -> Any:
        return checkpoint(self.layers, x, use_reentrant=False) + x


class Called(nn.Module):
    """By name, with a forward of its own, and with a change in place of what comes back in three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.rows = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.convolution = nn.Conv1d(WIDTH, WIDTH, 1)
        self.second.forward = lambda x: F.linear(x, self.second.weight.tanh())  # type: ignore[method-assign]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(input=x))
        x = F.relu_(self.rows(torch.stack([x, x.cos()], 1))).sum(1)
        out: torch.Tensor = self.convolution(input=x.t()).tanh_().t()
        return out


class Asking(nn.Module):
    """A forward that asks for a gradient, and may learn from it."""

    def __init__(self, learns: bool = False) -> None:
        super().__init__()
        self.layers, self.learns = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH)), learns

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layers(x)
        (slope,) = torch.autograd.grad(y.square().sum(), x, retain_graph=True, create_graph=self.learns)
        out: torch.Tensor = y * slope
        return out


KINDS: dict[str, Callable[[], nn.Module]] = {
    "layers": lambda: nn.Sequential(nn.Linear(WIDTH, 3), nn.ReLU(inplace=True), nn.Linear(3, WIDTH, bias=False)),
    "norms": lambda: nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.PReLU()),
    "convolutions": Convolutions,
    "sequences": Sequences,
    "reused": Reused,
    "frozen": Frozen,
    "hooked": Hooked,
    "beside": Beside,
    "recomputed": Recomputed,
    "called": Called,
    "asking": Asking,
}


def gradients(module: nn.Module) -> dict[str, torch.Tensor | None]:
    return {name: parameter.grad for name, parameter in module.named_parameters()}


@pytest.mark.parametrize("kind", KINDS)
def test_both_halves_give_the_bits_of_a_whole_backward(kind: str) -> None:
    torch.manual_seed(0)
    whole = KINDS[kind]()
    halves = KINDS[kind]()
    halves.load_state_dict(whole.state_dict())
    deferred, later = Deferred(halves), []
    for _ in range(3):
        x, dy = torch.randn(4, WIDTH), torch.randn(4, WIDTH)
        ours, theirs = (x.clone().requires_grad_() for _ in range(2))
        whole(theirs).backward(dy)
        found, rest = deferred.input_gradient([halves(ours)], [dy], [ours])
        later.append(rest)
        assert torch.equal(found[0], theirs.grad)
    for rest in later:
        deferred.weight_gradient(rest)
    expected, got = gradients(whole), gradients(halves)
    for name, gradient in expected.items():
        assert (gradient is None) == (got[name] is None), name
        assert gradient is None or torch.equal(gradient, got[name]), name


def test_a_forward_that_learns_from_a_gradient_is_refused() -> None:
    module, x = Asking(learns=True), torch.randn(4, WIDTH, requires_grad=True)
    Deferred(module)
    with pytest.raises(RuntimeError, match=r"learns from a gradient that it asks for; valid: weight_grad=autograd"):
        module(x)


def test_a_hook_that_comes_after_its_layer_is_refused() -> None:
    module, x = nn.Linear(WIDTH, WIDTH), torch.randn(4, WIDTH, requires_grad=True)
    deferred, output = Deferred(module), module(x)
    module.weight.register_hook(lambda grad: grad)
    with pytest.raises(RuntimeError, match="a hook came to a weight after its layer had run"):
        deferred.input_gradient([output], [torch.ones_like(output)], [x])


def test_a_weight_that_a_forward_also_takes_from_its_layer_is_right_within_rounding() -> None:
    whole = Reused(outside=True)
    halves = copy.deepcopy(whole)
    deferred, x, dy = Deferred(halves), torch.randn(4, WIDTH), torch.randn(4, WIDTH)
    whole(x.clone().requires_grad_()).backward(dy)
    leaf = x.clone().requires_grad_()
    _, rest = deferred.input_gradient([halves(leaf)], [dy], [leaf])
    deferred.weight_gradient(rest)
    torch.testing.assert_close(halves.layer.weight.grad, whole.layer.weight.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, WIDTH), (5, WIDTH), (2, 3, WIDTH), (2, 3, 2, WIDTH)], ids=str)
def test_products_of_every_shape_and_dtype(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    whole = nn.Sequential(nn.Linear(WIDTH, 7, dtype=dtype), nn.Linear(7, 7, bias=False, dtype=dtype))
    halves = copy.deepcopy(whole)
    deferred, x = Deferred(halves), torch.randn(shape, dtype=dtype)
    dy = torch.randn(*shape[:-2], 7, shape[-2], dtype=dtype).transpose(-1, -2)
    ours, theirs = (x.clone().requires_grad_() for _ in range(2))
    whole(theirs).backward(dy)
    found, rest = deferred.input_gradient([halves(ours)], [dy], [ours])
    deferred.weight_gradient(rest)
    assert torch.equal(found[0], theirs.grad)
    assert [torch.equal(a.grad, b.grad) for a, b in zip(halves.parameters(), whole.parameters(), strict=True)] == [
        True
    ] * 3


def test_a_stage_that_is_wired_for_several_shapes_has_one_ledger() -> None:
    module = nn.Sequential(nn.Linear(WIDTH, WIDTH))
    assert Deferred.of(nn.Sequential(module)) is Deferred.of(module)


def test_w_runs_no_graph() -> None:
    module = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH))
    deferred, x = Deferred(module), torch.randn(4, WIDTH, requires_grad=True)
    output = module(x)
    _, (pieces, put_down, rest) = deferred.input_gradient([output], [torch.ones_like(output)], [x])
    assert pieces == []
    assert [len(put_down), len(rest)] == [2, 2]  # layers, and vectors of the norm


class Tower(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(*(make() for _ in range(4) for make in (KINDS["layers"], KINDS["norms"], nn.Tanh)))


@pytest.mark.parametrize("split", ["modules", "replay"])
@pytest.mark.parametrize("schedule", [ZBV, ZB_H1], ids=["zbv", "zb_h1"])
def test_a_run_is_exact(tmp_path: Path, schedule: str, split: str) -> None:
    words = {"schedule": schedule, "num_stages": 4, "num_microbatches": 4, "weight_grad": "deferred"}
    assert ending(experiment(Tower, split=f"pipezoo.splitters.{split}.split", **words), tmp_path) == (0, "exact")


def test_a_traced_run_is_exact_and_deferred(tmp_path: Path) -> None:
    model = ("pipezoo.models.mlp.MultiMLP", {"d_hid": WIDTH, "n_layers": 2})
    words = {"schedule": ZB_H1, "weight_grad": "deferred", "split": "pipezoo.splitters.annotated.split"}
    assert ending(experiment(model, **words), tmp_path) == (0, "exact")


def test_a_product_that_is_added_twice_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weight_gradient = Deferred.weight_gradient

    def twice(self: Deferred, later: list[Any]) -> None:
        weight_gradient(self, [later[0], [*later[1], *later[1]], later[2]])

    monkeypatch.setattr(Deferred, "weight_gradient", twice)
    asked = experiment(Tower, schedule=ZB_H1, weight_grad="deferred")
    code, line = ending(asked, tmp_path)
    assert (code, "gradient of" in line) == (3, True)


def test_torchs_runtime_has_halves_of_its_own(tmp_path: Path) -> None:
    asked = experiment(Tower, weight_grad="deferred", executor="pipezoo.executors.torch_pipelining.TorchPipelining")
    assert ending(asked, tmp_path) == (
        2,
        "weight_grad=deferred: executor=TorchPipelining splits backwards in its own way; "
        "valid: executor=native, or weight_grad=autograd",
    )
