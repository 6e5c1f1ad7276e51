"""Configurations at random: each is refused in one line before anything starts, or ends verified.

PIPEZOO_RANDOM_RUNS=1000 python -m pytest tests/runtime/test_random_runs.py --hypothesis-show-statistics
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, note, seed, settings
from hypothesis import strategies as st

from pipezoo.config.resolve import conf_dir
from pipezoo.results.run_dir import read_result
from tests.support.command import Command

NUM_RUNS = int(os.environ.get("PIPEZOO_RANDOM_RUNS", "12"))
SEED = int(os.environ.get("PIPEZOO_RANDOM_SEED", "20"))
SMALL = {"d_hid": 16, "width": 16, "context": 8, "heads": 2}
GROUPS = ("model", "split", "optimizer", "loss", "launch", "executor")  # options of conf/, each now and then
COUNTS = {
    "stages": st.integers(1, 6),
    "ranks": st.integers(1, 4),
    "microbatches": st.integers(1, 8),
    "batch_size": st.integers(1, 24),
    "seed": st.integers(0, 9),
    "steps": st.integers(1, 3),
}
OTHERS = {
    "weight_grad": ["autograd", "deferred", "module"],
    "dtype": ["float32", "float64", "bfloat16", "float16"],
    "tolerance": ["0", "1e-300", "0.1", "null"],
    "on_nonfinite": ["stop", "warn", "ignore"],
    "checkpoint.every": ["1", "2", "0", "null"],
    "record_steps": ["1", "5"],
    "stages": ["0", "-1", "two"],
    "optimizer.lr": ["0", "0.001", "nan"],
    "split.by": ["parameters", "flops", "time"],
    "launch.threads": ["1", "0"],
}


def options(group: str) -> list[str]:
    """What ``conf/`` has of a group, but for what would submit jobs where there is a cluster."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml") if path.stem != "slurm")


def small(model: str) -> list[str]:
    """The words that make a model small: those of SMALL that its YAML has."""
    text = (conf_dir() / "model" / f"{model}.yaml").read_text(encoding="utf-8")
    return [f"model.{key}={value}" for key, value in SMALL.items() if f"\n{key}: " in text]


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Words that may or may not go together."""
    model = draw(st.sampled_from(options("model")))
    schedule = draw(st.sampled_from([name for name in options("schedule") if name != "csv"]))
    words = [f"model={model}", *small(model), f"schedule={schedule}"]
    for group in GROUPS[1:]:
        if draw(st.integers(0, 3)) == 3:
            words.append(f"{group}={draw(st.sampled_from(options(group)))}")
    for key, values in COUNTS.items():
        if draw(st.integers(0, 2)) == 2:
            words.append(f"{key}={draw(values)}")
    for key, choices in OTHERS.items():
        if draw(st.integers(0, 15)) == 15:
            words.append(f"{key}={draw(st.sampled_from(choices))}")
    if model == "gpt" and draw(st.booleans()):
        words.append("model.tied=true")
    return [*words, *([] if any(word.startswith("steps=") for word in words) else ["steps=2"])]


@pytest.mark.slow
@pytest.mark.timeout(120 + 10 * NUM_RUNS)
@seed(SEED)
@settings(
    max_examples=NUM_RUNS,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)
@given(command_lines())
def test_a_config_is_refused_or_runs_verified(words: list[str]) -> None:
    folder = Path(tempfile.mkdtemp())  # a TemporaryDirectory would be removed by each command that leaves
    try:
        ended = Command(folder, (*words, "hydra.run.dir=run")).start().wait(90.0)
        ended.gone_after(1.0)
        note(f"{' '.join(words)}: {ended.code} {ended.err}")
        assert ended.code in (0, 2)
        if ended.code == 2:
            event("refused")
            assert len(ended.err.splitlines()) == 1
            assert ended.err.startswith("error: ")
            assert not (folder / "run" / "metrics.jsonl").exists()
        else:
            assert ended.err == ""
            verified = read_result(folder / "run")["verified"]
            event(verified)
            assert verified in ("exact", "close")
    finally:
        shutil.rmtree(folder)
