"""Folders of runs, for the tests of the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipezoo.results.run_dir import write_json, write_text
from pipezoo.results.timeline_file import save_timelines
from tests.support.timelines import timeline


def result(num_ranks: int = 4, num_microbatches: int = 8, schedule: str = "1f1b", **more: Any) -> dict[str, Any]:
    """What a run of that size could have written into ``result.json``."""
    predicted, measured = _timelines(num_ranks, num_microbatches, schedule == "zb")
    return {
        "status": "ok",
        "task": "train",
        "verified": "exact",
        "max_relative_difference": 0.0,
        "losses": [4.0, 2.5, 1.75],
        "step_seconds": {"median": measured.makespan, "min": measured.makespan, "max": 2 * measured.makespan},
        "samples_per_second": 32 / measured.makespan,
        "bubble": {"measured": measured.bubbles(), "predicted": predicted.bubbles()},
        "num_stages": num_ranks,
        "num_ranks": num_ranks,
        "num_microbatches": num_microbatches,
        "schedule": schedule,
        "model": "multi_mlp",
        "derived": [f"ranks={num_ranks} (1 stage per rank)"],
        "memory": {"predicted": [2.0**20] * num_ranks, "measured": [2.0**21] * num_ranks},
        "prediction": {
            "step_error": -0.125,
            "cost": {"stages": [{"F": 1e-3, "B": 2e-3, "activation_bytes": 1024.0}] * num_ranks},
        },
        "versions": {"pipezoo": "0.1.0"},
        "config_hash": "4f2a",
        **more,
    }


def run_folder(
    folder: Path, num_ranks: int = 4, num_microbatches: int = 8, schedule: str = "1f1b", **more: Any
) -> Path:
    """A finished run: every file that the report reads."""
    (folder / ".hydra").mkdir(parents=True)
    write_json(folder / "result.json", result(num_ranks, num_microbatches, schedule, **more))
    write_text(folder / "config.yaml", f"stages: {num_ranks}\nmodel:\n  d_hid: 512\nschedule: {schedule}\n")
    overrides = [f"stages={num_ranks}", f"microbatches={num_microbatches}", f"schedule={schedule}"]
    write_text(folder / ".hydra" / "overrides.yaml", json.dumps(overrides))
    save_timelines(folder, _timelines(num_ranks, num_microbatches, schedule == "zb"))
    return folder


def _timelines(num_ranks: int, num_microbatches: int, halves: bool) -> list:
    predicted = timeline(num_ranks, num_microbatches, halves, seconds=1e-3)
    return [predicted, timeline(num_ranks, num_microbatches, halves, seconds=1e-3, jitter=0.2, source="measured")]
