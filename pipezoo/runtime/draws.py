"""Random numbers by counter: what a module draws is a function of where it stands, and not of who drew before.

    blocks.2.drop draws for microbatch 5 in step 7
        seed, 7, 5, "blocks.2.drop", 0  ──hash──►  the generator's seed  ──►  its numbers
        seed, 7, 5, "blocks.2.drop", 1  ──hash──►  ...                        the module's second draw, if it has one

The unsplit model and every cut of it have the same addresses and counts. So they draw the same numbers, for any
schedule and number of ranks, in any process, and after a resume.

A draw is one call of a function of torch that moves the generator, whatever it draws inside. Two cases need care:

* *Activation checkpointing* saves the generator's state and sets it again before it recomputes. While we count, the
  state carries the counts, so what is recomputed finds those of its forward.
* *A model that seeds the generator itself* keeps its seed, until another module draws.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from pipezoo.schedule.action import Op
from pipezoo.splitters._addresses import addresses

Counts = Mapping[str, int]
NO_DRAWS: Counts = MappingProxyType({})
LOSS = "loss of the run"  # the address of the loss, which is in no model
NAMES = """
_sample_dirichlet _standard_gamma alpha_dropout alpha_dropout_ bernoulli bernoulli_ binomial cauchy_ dropout dropout1d
dropout2d dropout3d dropout_ exponential_ feature_alpha_dropout feature_alpha_dropout_ feature_dropout
feature_dropout_ fractional_max_pool2d fractional_max_pool3d geometric_ gru gumbel_softmax log_normal_ lstm
multi_head_attention_forward multinomial native_dropout normal normal_ poisson rand rand_like randint randint_like
randn randn_like random_ randperm rnn_relu rnn_tanh rrelu rrelu_ scaled_dot_product_attention uniform_
"""
DRAWING = frozenset(NAMES.split())
QUIET = {f"torch.nn.modules.{file}" for file in ("batchnorm", "container", "conv", "linear", "normalization", "sparse")}


@dataclass(frozen=True)
class Drawing:
    """What is known of a model that draws random numbers.

    Args:
        modules: address and class of each module that draws.
        functions: the names of torch's functions that draw.
        before: by stage, how often each module has drawn in earlier stages, where a module is in several.
    """

    modules: tuple[tuple[str, str], ...]
    functions: frozenset[str]
    before: tuple[Counts, ...]

    def in_stages(self, seed: int, stages: Iterable[nn.Module], loss: nn.Module) -> StageDraws:
        """Have these stages draw by counter from now on."""
        draws = Draws(seed, self.functions)
        for stage in stages:
            draws.follow(addresses(stage))
        draws.follow(loss_addresses(loss))
        return StageDraws(draws, self.before)

    def in_model(self, seed: int, model: nn.Module, loss: nn.Module) -> Draws:
        """Have this unsplit model draw by counter from now on."""
        draws = Draws(seed, self.functions)
        draws.follow([*model.named_modules(), *loss_addresses(loss)])
        return draws


@dataclass(frozen=True)
class StageDraws:
    """The draws of some stages of one process."""

    draws: Draws
    before: tuple[Counts, ...]

    def begin_step(self, step: int) -> None:
        self.draws.step = step

    def begin_share(self, first: int) -> None:
        """The microbatches that come are those of the batch from ``first`` on."""
        self.draws.first = first

    def around(self, call: Callable[[], None], op: Op, stage: int, microbatch: int) -> Callable[[], None]:
        """``call``, an action that draws for this microbatch, forwards or where it recomputes."""
        draws, before = self.draws, self.before[stage]

        def forward() -> None:
            with draws.at(microbatch, before):
                call()

        def backward() -> None:
            with draws.again(microbatch):
                call()

        return forward if op == Op.F else backward

    def at(self, stage: int, microbatch: int) -> Draws:
        return self.draws.at(microbatch, self.before[stage])

    def callables(self, stages: Sequence[nn.Module], microbatch: int) -> list[DrawingStage]:
        """All stages of the model, to be called one after the other."""
        return [DrawingStage(stage, partial(self.at, index, microbatch)) for index, stage in enumerate(stages)]


class DrawingStage:
    """A stage to be called, which draws as ``at`` says."""

    def __init__(self, stage: nn.Module, at: Callable[[], Draws]) -> None:
        self._stage, self._at = stage, at
        self.takes = getattr(stage, "takes", None)  # the skips

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._at():
            return self._stage(*args, **kwargs)


class Draws(TorchFunctionMode):
    """Seeds torch's generators before each draw of the modules that it follows; ``with draws.at(microbatch): ...``

    Args:
        seed: of the run.
        functions: the names of the functions that draw.
    """

    def __init__(self, seed: int, functions: frozenset[str]) -> None:
        super().__init__()
        self.step = 0
        self.first = 0  # the place in the batch of what is called microbatch 0
        self.counts: dict[str, int] = {}
        self._seed, self._place, self._functions = seed, "", functions
        self._drawing: dict[Any, bool] = {}
        self._path: list[str] = []  # the modules that run now, the outermost first
        self._forwards = self._on = False
        self._ours = 0  # the last seed that came from here
        self._seeded_by: str | None = None  # the module that set another
        gpus = torch.cuda.default_generators if torch.cuda.is_initialized() else ()
        self._generators = [torch.default_generator, *gpus]

    def follow(self, modules: Iterable[tuple[str, nn.Module]]) -> None:
        """Note when each of these modules runs."""
        for address, module in modules:
            if type(module).__module__ not in QUIET:
                _announce(module, address, self._path)

    def at(self, microbatch: int, before: Counts = NO_DRAWS) -> Draws:
        """For ``with``: what a forward draws in it, it draws for this microbatch of the current step."""
        self._place, self._forwards = f"{self._seed}/{self.step}/{self.first + microbatch}", True
        self.counts = dict(before)
        return self

    def again(self, microbatch: int) -> Draws:
        """For ``with``: a backward, which draws what a forward drew where it recomputes that."""
        self._place, self._forwards = f"{self._seed}/{self.step}/{self.first + microbatch}", False
        return self

    def __enter__(self) -> Draws:
        self._path.clear()
        self._ours, self._seeded_by = torch.initial_seed(), None
        _patch(self._state, self._set_state)
        self._switch(self._forwards)
        return self

    def __exit__(self, *error: Any) -> None:
        self._switch(False)
        _patch(_get_state, _set_state)

    def _switch(self, on: bool) -> None:
        """Whether we see the functions that are called. Not in a backward: torch.autograd.grad is one of them."""
        if on and not self._on:
            super().__enter__()  # type: ignore[no-untyped-call]
        elif self._on and not on:
            super().__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self._on = on

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = self._drawing.get(func)
        if known is None:
            known = self._drawing[func] = name_of(func) in self._functions
        if known:
            self._count()
        return func(*args, **(kwargs or {}))

    def _count(self) -> None:
        """Seed for the next draw of the innermost module."""
        address = self._path[-1] if self._path else ""
        number = self.counts.get(address, 0)
        self.counts[address] = number + 1
        if torch.initial_seed() != self._ours and self._seeded_by in (None, address):
            self._seeded_by = address
            return
        key = hashlib.blake2b(f"{self._place}/{address}/{number}".encode(), digest_size=8).digest()
        self._ours = int.from_bytes(key, "little") >> 1
        for generator in self._generators:
            generator.manual_seed(self._ours)

    def _state(self) -> torch.Tensor:
        """The generator's state, with the counts for those who recompute."""
        state = _get_state()
        kept = dict(self.counts), list(self._path), self._ours, self._seeded_by, self._on
        state.counts_of_draws = kept  # type: ignore[attr-defined]
        return state

    def _set_state(self, state: torch.Tensor) -> None:
        _set_state(state)
        if (kept := getattr(state, "counts_of_draws", None)) is not None:
            counts, self._path[:], self._ours, self._seeded_by, on = kept
            self.counts = dict(counts)
            self._switch(on)


class NoDraws:
    """Stands where nothing is random."""

    step = 0

    def at(self, microbatch: int) -> AbstractContextManager[Any]:
        return nullcontext()

    def again(self, microbatch: int) -> AbstractContextManager[Any]:
        return nullcontext()


def name_of(function: Any) -> str:
    """``dropout`` for ``F.dropout``, ``torch.dropout`` and ``torch.ops.aten.dropout.default``."""
    return str(getattr(function, "__name__", "")).partition(".")[0]


def loss_addresses(loss: nn.Module) -> list[tuple[str, nn.Module]]:
    modules = loss.named_modules() if isinstance(loss, nn.Module) else ()
    return [(f"{LOSS}.{name}", module) for name, module in modules]


def _announce(module: nn.Module, address: str, path: list[str]) -> None:
    def began(*_: Any) -> None:
        path.append(address)

    def ended(*_: Any) -> None:
        if path:
            path.pop()

    module.register_forward_pre_hook(began, prepend=True)
    module.register_forward_hook(ended, always_call=True)


_get_state, _set_state = torch.get_rng_state, torch.set_rng_state


def _patch(get: Any, set_: Any) -> None:
    """What ``torch.utils.checkpoint`` saves before a forward, and sets before it recomputes."""
    torch.get_rng_state, torch.set_rng_state = get, set_
