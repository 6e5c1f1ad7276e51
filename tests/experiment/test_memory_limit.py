"""What does not fit into memory is refused in one line before it is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipezoo.config.compose import load
from pipezoo.errors import ConfigError
from pipezoo.experiment import memory_limit
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.experiment.derive import Sizes, derive, resolve
from pipezoo.experiment.memory_limit import available_bytes, check_schedule_fits
from tests.support.configs import compose

GIB = 2.0**30


@pytest.fixture
def four_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_limit, "available_bytes", lambda: 4 * GIB)


def sizes_of(words: str) -> Sizes:
    experiment = load(*compose(["task=simulate", *words.split()]), Allowlist())
    asked = derive(experiment)
    return resolve(experiment, asked, asked.num_stages or 0)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("ranks=1000000000 microbatches=1", "ranks=1000000000: the order and its simulation of 1000000000 stages"),
        ("stages=1000000000 microbatches=1", "stages=1000000000: the order and its simulation of 1000000000 stages"),
        ("ranks=4 microbatches=1000000000000", "microbatches=1000000000000: the order and its simulation of 4 stages"),
        ("ranks=99999 schedule=zbv", "ranks=99999: the order and its simulation of 199998 stages and 99999 micro"),
    ],
)
def test_an_order_too_large_is_refused_before_it_is_made(words, key, four_gib, monkeypatch):
    monkeypatch.setattr("pipezoo.experiment.component.Component.once", lambda *_, **__: pytest.fail("was made"))
    with pytest.raises(ConfigError) as error:
        sizes_of(words)
    assert str(error.value).startswith(key)
    assert str(error.value).endswith("of memory, and 4 GiB are free")


def test_an_order_of_ordinary_size_fits(four_gib):
    check_schedule_fits(1024, 4096, "ranks=1024", is_simulated=True)
    check_schedule_fits(4, 1_000_000, "ranks=4", is_simulated=True)


def test_the_tightest_of_machine_and_control_group_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(memory_limit, "PROC", tmp_path)
    monkeypatch.setattr(memory_limit, "CGROUP", tmp_path)
    monkeypatch.setattr(memory_limit, "_of_process", lambda: float("inf"))
    assert available_bytes() == float("inf")  # a system that does not say
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 8 kB\n")
    assert available_bytes() == 8 * 1024
    for name, text in (("memory.max", "6000"), ("memory.current", "5000"), ("memory.stat", "anon 1\ninactive_file 7")):
        (tmp_path / name).write_text(text + "\n")
    assert available_bytes() == 6000 - 5000 + 7
    (tmp_path / "memory.max").write_text("max\n")
    assert available_bytes() == 8 * 1024


def test_this_machine_says_what_it_has():
    if Path("/proc/meminfo").exists():
        assert 2**20 < available_bytes() < 2**60
