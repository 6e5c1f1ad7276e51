"""A model or a batch that does not fit into memory is refused before it is made."""

from __future__ import annotations

import pytest
import torch

from pipezoo.config.compose import load
from pipezoo.errors import ConfigError
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.runtime import allocation_guard
from pipezoo.runtime.allocation_guard import AllocationGuard, TooLargeError
from pipezoo.runtime.build import build_pipeline
from tests.support.configs import compose


@pytest.fixture
def one_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation_guard, "available_bytes", lambda: 2.0**30)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.empty(2**29),
        lambda: torch.randn(2**15, 2**15),
        lambda: torch.zeros((2**15, 2**14), dtype=torch.float64),
        lambda: torch.ones(size=(2**29,)),
        lambda: torch.full((2**29,), 1.0),
        lambda: torch.randint(5, (2**28,), dtype=torch.int64),
        lambda: torch.nn.Linear(2**15, 2**15),
        lambda: torch.nn.Embedding(2**30, 10**12),
        lambda: torch.randn(10**30, 10**30),
    ],
)
def test_a_tensor_larger_than_what_is_left_is_not_made(make, one_gib):
    with AllocationGuard(), pytest.raises(TooLargeError, match="1 GiB of memory are free"):
        make()


def test_what_fits_is_made_as_ever(one_gib):
    torch.manual_seed(0)
    plain = torch.nn.Linear(64, 64).weight
    torch.manual_seed(0)
    with AllocationGuard():
        assert torch.equal(torch.nn.Linear(64, 64).weight, plain)


@pytest.mark.parametrize(
    ("words", "start"),
    [
        ("batch_size=1000000000000", "batch_size=1000000000000: data=regression: a tensor of it takes 1863 TiB"),
        ("microbatches=250000000000", "microbatches=250000000000: data=regression: a tensor of it takes 1863 TiB"),
        ("model.d_hid=60000", "model=example_code: its parameters take "),
        ("model=gpt model.width=400000", "model=gpt: its parameters take "),
        ("model.d_hid=64 data.d_hid=10000000", "data=regression: a tensor of it takes 363.8 TiB"),
    ],
)
def test_a_run_too_large_is_refused_in_one_line(words, start, one_gib, tmp_path):
    with pytest.raises(ConfigError) as error:
        build_pipeline(load(*compose(words.split()), Allowlist()), tmp_path)
    assert str(error.value).startswith(start)
    assert "\n" not in str(error.value)
