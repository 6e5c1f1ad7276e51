"""A whole recipe is killed in the middle, goes on with another split, and ends as if nothing had been."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SMALL = ("model.width=16", "model.heads=2", "model.context=8", "batch_size=8", "microbatches=4", "steps=8")
RARELY = ("eval.every=4", "eval.batches=2", "checkpoint.every=2", "lr_schedule.warmup=2", "launch=virtual")
RECIPE = ("experiment=gpt_recipe", *SMALL, *RARELY)


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def metrics(folder: Path) -> dict[int, dict[str, Any]]:
    """By step, everything but times."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: {key: value for key, value in line.items() if key != "seconds"} for line in lines}


def test_a_recipe_that_is_killed_goes_on_with_another_split_and_ends_with_the_same_bits(tmp_path: Path, cli) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (extra tensorboard)")
    whole, killed, resumed = (tmp_path / name for name in ("whole", "killed", "resumed"))

    assert cli(*RECIPE, f"hydra.run.dir={whole}").code == 0
    struck = cli(*RECIPE, "fault=kill", "fault.step=5", "verify=false", f"hydra.run.dir={killed}")
    assert struck.code == 4
    words = ("stages=3", "schedule=zb_h1", f"resume={killed}", f"hydra.run.dir={resumed}")
    gone_on = cli(*(word for word in RECIPE), *words)

    assert gone_on.code == 0, gone_on.err
    assert result(resumed)["resumed"]["step"] == 4
    assert result(whole)["verified"] == result(resumed)["verified"] == "exact"
    expected = metrics(whole)
    assert metrics(resumed) == {step: expected[step] for step in range(4, 8)}
    assert result(resumed)["losses"][-1] == result(whole)["losses"][-1]
