"""Models, losses and data whose microbatches count unlike much, or have losses of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from pipezoo.data.batch import Batch, generator
from pipezoo.losses import with_auxiliary

VOCAB, LENGTH = 16, 8


class Tagger(nn.Sequential):
    def __init__(self, depth: int = 2) -> None:
        layers = [nn.Sequential(nn.Linear(VOCAB, VOCAB), nn.Tanh()) for _ in range(depth)]
        super().__init__(nn.Embedding(VOCAB, VOCAB), *layers, nn.Linear(VOCAB, VOCAB))


class Masked(nn.Module):
    """A mean over what is no padding, which does not say so."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits.flatten(0, -2), target.flatten(), reduction=self.reduction)


class Counted(Masked):
    def count(self, target: torch.Tensor) -> torch.Tensor:
        return (target != -100).sum()


class Miscounted(Masked):
    """Counts padding as well."""

    def count(self, target: torch.Tensor) -> int:
        return target.numel()


class Classes(nn.CrossEntropyLoss):
    """torch's own, for a class at every position."""

    def __init__(self, weighted: bool = False) -> None:
        super().__init__(torch.linspace(0.5, 2.0, VOCAB) if weighted else None)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return super().forward(logits.flatten(0, -2), target.flatten())


def padded(batch_size: int, seed: int, empty: bool = False) -> Callable[[int], Batch]:
    """Rows end in padding, some more of it than others; with ``empty`` the first quarter is nothing else."""

    def batch(step: int) -> Batch:
        random = generator(seed, step)
        ids = torch.randint(VOCAB, (batch_size, LENGTH), generator=random)
        counted = torch.randint(1, LENGTH, (batch_size, 1), generator=random)
        if empty:
            counted[: batch_size // 4] = 0
        return Batch((ids,), {}, torch.where(torch.arange(LENGTH) < counted, (ids + 1) % VOCAB, -100))

    return batch


class Routed(nn.Module):
    """Two experts, and a loss that wants both used alike."""

    def __init__(self, width: int, weight: float) -> None:
        super().__init__()
        self.router = nn.Linear(width, 2)
        self.experts = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.weight = weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shares = self.router(x).softmax(-1)
        mixed = x + sum(shares[:, i : i + 1] * expert(x) for i, expert in enumerate(self.experts))
        return with_auxiliary(mixed, self.weight * 2 * (shares.mean(0) ** 2).sum())


class Experts(nn.Sequential):
    def __init__(self, width: int = 8, depth: int = 4, weight: float = 0.1) -> None:
        super().__init__(*(Routed(width, weight) for _ in range(depth)))


class TwoOutputs(nn.Module):
    """Returns what it is given, and a score a row of it."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.score = nn.Linear(width, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.second(self.first(x).tanh())
        return x, self.score(x)


def halves(model: nn.Module, num_stages: Any = None, example: Any = None) -> list[nn.Module]:
    return [nn.Sequential(model.first, nn.Tanh()), Tail(model)]


class Tail(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.second, self.score = model.second, model.score

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.second(x)
        return x, self.score(x)


class OfBoth(nn.MSELoss):
    def forward(self, output: tuple[torch.Tensor, torch.Tensor], target: torch.Tensor) -> torch.Tensor:
        x, score = output
        return super().forward(x, target) + 0.1 * score.square().mean()
