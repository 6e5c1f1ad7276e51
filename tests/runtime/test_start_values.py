"""A process that was not forked has the model's first values without making them: it maps what its parent left."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pipezoo.runtime.rank_memory import private_bytes
from pipezoo.runtime.stages import make_model
from pipezoo.runtime.start_values import leave_start, model_at_start
from tests.support.uncut_models import Classifier, Normalised, ResidualLSTM


class Looks(nn.Module):
    """Its constructor looks at a value."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.scale = float(self.layer.weight.detach().abs().max())


class Keeps(nn.Module):
    """It keeps a tensor that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.table = nn.Linear(4, 4), [torch.arange(4)]


class Hooked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.layer.weight.register_hook(lambda gradient: gradient * 2)


class Frozen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4).requires_grad_(False)
        self.register_buffer("table", torch.arange(3), persistent=False)


def made(kind: type[nn.Module]) -> nn.Module:
    return make_model(kind, 0, torch.float64)


@pytest.mark.parametrize("kind", [Classifier, Normalised, ResidualLSTM, Looks, Keeps, Hooked, Frozen])
def test_it_is_the_same_model(tmp_path: Path, kind: type[nn.Module]) -> None:
    trained = made(kind)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter += 1  # not what the seed gives
    leave_start(trained, tmp_path / "start.pt")
    mapped = model_at_start(lambda: made(kind), tmp_path / "start.pt")
    ours, theirs = (dict([*m.named_parameters(), *m.named_buffers()]) for m in (mapped, trained))
    assert [*ours] == [*theirs]
    for name, value in theirs.items():
        assert torch.equal(ours[name], value), name
        assert ours[name].requires_grad == value.requires_grad
        assert not ours[name].is_meta
    assert mapped.state_dict().keys() == trained.state_dict().keys()
    assert len(mapped._backward_hooks) == len(trained._backward_hooks)
    assert [bool(p._backward_hooks) for p in mapped.parameters()] == [
        bool(p._backward_hooks) for p in trained.parameters()
    ]
    assert not any(t.is_meta for t in getattr(mapped, "table", []) if isinstance(t, torch.Tensor))


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2048, 2048) for _ in range(4))  # 64 MiB


@pytest.mark.skipif(private_bytes() is None, reason="the system does not tell what a process holds")
def test_a_page_is_private_once_it_is_written(tmp_path: Path) -> None:
    leave_start(make_model(Wide, 0, torch.float32), tmp_path / "start.pt")
    before = private_bytes() or 0
    mapped = model_at_start(lambda: make_model(Wide, 0, torch.float32), tmp_path / "start.pt")
    read = (private_bytes() or 0) - before
    with torch.no_grad():
        mapped.layers[1].weight.mul_(2)  # type: ignore[union-attr, operator]
    written = (private_bytes() or 0) - before
    assert read < 2**23
    assert 2**24 <= written - read < 2**24 + 2**22  # one layer of the four


def test_what_is_written_stays_in_the_process(tmp_path: Path) -> None:
    leave_start(made(Frozen), tmp_path / "start.pt")
    for _ in range(2):
        mapped = model_at_start(lambda: made(Frozen), tmp_path / "start.pt")
        assert torch.equal(mapped.layer.weight, made(Frozen).layer.weight)  # type: ignore[union-attr, arg-type]
        mapped.layer.weight.zero_()  # type: ignore[union-attr, operator]
