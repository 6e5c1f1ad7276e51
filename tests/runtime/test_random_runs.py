"""Configurations at random: each is refused in one line before anything starts, or ends verified."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, note, seed, settings
from hypothesis import strategies as st

from pipezoo.results.run_dir import read_result
from tests.support.command import Command

NUM_RUNS = int(os.environ.get("PIPEZOO_RANDOM_RUNS", "25"))
MODELS = {  # with what makes them small
    "example_code": "model.d_hid=8",
    "model_with_kwargs": "model.d_hid=8",
    "model_with_param_alias": "model.d_hid=8",
    "multi_mlp": "model.d_hid=8",
    "multi_mlp_kwargs": "model.d_hid=8",
    "multi_mlp_with_dw": "model.d_hid=8",
    "gpt": "model.width=16 model.context=8 model.heads=2",
}
SCHEDULES = ("gpipe 1f1b interleaved_1f1b looped_bfs interleaved_zero_bubble zbv dualpipev zb_h1 unbalanced").split()  # noqa: SIM905


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """Words that may or may not go together."""
    model = draw(st.sampled_from(sorted(MODELS)))
    words = [f"model={model}", *MODELS[model].split(), f"schedule={draw(st.sampled_from(SCHEDULES))}", "steps=2"]
    counts = {
        "stages": st.integers(1, 6),
        "ranks": st.integers(1, 4),
        "microbatches": st.integers(1, 8),
        "batch_size": st.integers(1, 24),
        "seed": st.integers(0, 9),
    }
    for key, values in counts.items():
        if draw(st.booleans()):
            words.append(f"{key}={draw(values)}")
    for group, options in {
        "split": ["marked", "annotated", "modules"],
        "optimizer": ["sgd", "adamw"],
        "weight_grad": ["autograd", "module"],
        "dtype": ["float32", "float64", "bfloat16"],
        "launch": ["processes", "virtual"],
    }.items():
        if draw(st.integers(0, 3)) == 0:
            words.append(f"{group}={draw(st.sampled_from(options))}")
    return words


@pytest.mark.slow
@pytest.mark.timeout(600)
@seed(20)
@settings(
    max_examples=NUM_RUNS,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)
@given(command_lines())
def test_a_config_is_refused_or_runs_verified(words: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ended = Command(Path(folder), (*words, "hydra.run.dir=run")).start().wait(90.0)
        ended.gone_after(1.0)
        note(f"{' '.join(words)}: {ended.code} {ended.err}")
        assert ended.code in (0, 2)
        if ended.code == 2:
            assert len(ended.err.splitlines()) == 1
            assert ended.err.startswith("error: ")
            assert not (Path(folder) / "run" / "metrics.jsonl").exists()
        else:
            assert ended.err == ""
            assert read_result(Path(folder) / "run")["verified"] in ("exact", "close")
