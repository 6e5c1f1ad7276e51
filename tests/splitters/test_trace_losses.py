"""A trace says what of the model it is not; a replay has nothing to say."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.pipelining import pipe_split
from torch.utils.checkpoint import checkpoint

from pipezoo.splitters import annotated, marked, replay

WIDTH = 8
SPEC = {"blocks.2": "beginning"}
EXAMPLE = (torch.randn(4, WIDTH),)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(x).relu())


class Model(nn.Module):
    def __init__(self, checkpoints: bool = False) -> None:
        super().__init__()
        self.blocks, self.checkpoints = nn.ModuleList(Block() for _ in range(4)), checkpoints

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpoints else block(x)
        return x


class Attention(Model):
    """As libraries do: another way to the same values while it is traced."""

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return (x * 3 - x * 2) * 0.1 if torch.compiler.is_exporting() else x * 0.1


class Noisy(Model):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x), 0.5)


def compiled() -> nn.Module:
    model = Model()
    model.blocks[1].compile()
    return model


def hooked() -> nn.Module:
    model = Model()
    model.blocks[3].register_full_backward_hook(lambda *_: None)
    model.blocks[1].register_forward_hook(lambda *_: None)
    return model


def mark(*_: object) -> None:
    pipe_split()


def marked_by_a_hook() -> nn.Module:
    model = Model()
    model.blocks[2].register_forward_pre_hook(mark)
    return model


LOST = {
    "nothing": (Model, ""),
    "checkpointing": (
        lambda: Model(True),
        r"the trace keeps 2,560 bytes of a microbatch for the backward, the model itself 512: activation checkpointing "
        r"is not in it; split=replay drops nothing",
    ),
    "a compiled block": (compiled, r"blocks\.1 is compiled, and is not in the trace; split=replay drops nothing"),
    "hooks": (hooked, r"hooks of blocks\.1 and 1 more modules ran while it was traced, and do not run again; .*"),
    "another kernel": (
        Attention,
        r"the trace rounds otherwise than the model, by \d\.?\d*e-0\d: its kernels are others; .*",
    ),
    "random numbers": (Noisy, ""),
}


@pytest.mark.parametrize("lost", LOST)
def test_what_a_trace_is_not_it_says(lost: str) -> None:
    make, expected = LOST[lost]
    torch.manual_seed(0)
    stages = annotated.split(make(), 2, EXAMPLE, SPEC)
    found = stages[0].lost_in_trace
    assert len(found) == bool(expected)
    if expected:
        (words,) = found
        assert re.fullmatch(expected, words)


def test_a_mark_is_no_hook_that_is_lost() -> None:
    stages = marked.split(marked_by_a_hook(), 2, EXAMPLE)
    assert stages[0].lost_in_trace == ()


def test_a_replay_keeps_checkpointing_and_hooks() -> None:
    model = hooked()
    model.checkpoints = True
    stages = replay.split(model, 2, EXAMPLE)
    assert not hasattr(stages[0], "lost_in_trace")


def test_looking_changes_nothing() -> None:
    model = nn.Sequential(Model(), nn.BatchNorm1d(WIDTH))
    model.split_spec = {"0.blocks.2": "beginning"}
    state = torch.get_rng_state()
    annotated.split(model, 2, EXAMPLE)
    assert model[1].num_batches_tracked == 0
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
