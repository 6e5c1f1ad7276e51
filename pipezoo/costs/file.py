"""Costs from a file: YAML written by hand, or the ``result.json`` of a former run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from pipezoo.errors import ArgumentError
from pipezoo.results.renamed import with_new_cost_keys
from pipezoo.simulator.cost import Cost
from pipezoo.validators import regular_file


def read(num_stages: int | None, stages_per_rank: int = 1, *, file: str | Path) -> Cost:
    """Read a cost file (the form is shown in ``cost.py``), a run's ``result.json``, or the folder that holds one.

    Keys of before are read under those of today.

    Raises:
        ValueError: ``file=...`` cannot be read or has no costs, or one line that names the entry at fault.
    """
    path = Path(file)
    path = path / "result.json" if path.is_dir() else path
    try:
        text = regular_file(path).read_text(encoding="utf-8-sig")
        data: Any = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError("file", file, getattr(error, "strerror", None) or "not a text file") from error
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        raise ArgumentError("file", file, " ".join(str(error).split())) from error
    if path.suffix == ".json" and isinstance(data, dict) and "stages" not in data:
        prediction = data.get("prediction")
        data = (prediction.get("cost") if isinstance(prediction, dict) else None) or data.get("cost")  # of a plan
        if data is None:
            raise ArgumentError("file", file, "this run knew no costs; its result.json has no entry prediction.cost")
    if isinstance(data, dict):
        data.pop("_target_", None)  # so that a file of conf/cost can be read as it stands
    try:
        return Cost.from_dict(with_new_cost_keys(data), num_stages)
    except ValueError as error:
        raise ArgumentError("file", file, str(error)) from None
