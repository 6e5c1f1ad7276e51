"""Costs as plain dicts, in the form that stands on top of ``cost.py``: read, and found in a run's folder."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from pipezoo.errors import ArgumentError
from pipezoo.schedule.action import COMPUTE
from pipezoo.simulator.cost_entries import BYTES_AND_OPTIMIZER, entries_of, mapping
from pipezoo.simulator.p2p import P2P, Links
from pipezoo.simulator.skip_messages import messages_of

KEYS = ("stages", "p2p", "p2p_intra_node", "ranks_per_node", "overlap", "overlap_gain", "unit", "skips", "links")


def arguments_of(data: object, num_stages: int | None) -> dict[str, Any]:
    """The arguments of a :class:`Cost` that a dict describes. Raises ArgumentError."""
    fields = mapping("cost", data, KEYS)
    entries = entries_of(fields.pop("stages", None), num_stages)
    fields |= {key: np.array([entry.get(key, 0.0) for entry in entries]) for key in BYTES_AND_OPTIMIZER}
    seconds = np.array([[entry.get(op.name, math.nan) for op in COMPUTE] for entry in entries])
    for key in ("p2p", "p2p_intra_node"):
        if fields.get(key) is None:
            fields.pop(key, None)
            continue
        entries_of_p2p = mapping(key, fields[key], ("latency", "bandwidth"))
        try:
            fields[key] = P2P(**entries_of_p2p)
        except ArgumentError as error:
            raise error.inside(key) from None
    fields["skips"] = messages_of(fields.get("skips") or ())
    if fields.get("links") is not None:
        fields["links"] = Links.from_dict(fields["links"])
    return {"seconds": seconds, **fields}


def of_run(folder: str | Path) -> dict[str, Any]:
    """The dict that a former run left. Raises ArgumentError: the folder holds no run, or one that knew no costs."""
    path = Path(folder) / "result.json"
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArgumentError("folder", folder, f"holds no run that can be read: {error}") from None
    result = read if isinstance(read, dict) else {}
    prediction = result.get("prediction")
    found = (prediction.get("cost") if isinstance(prediction, dict) else None) or result.get("cost")
    if not isinstance(found, dict):
        raise ArgumentError("folder", folder, "this run knew no costs")
    return found
