"""The timelines of a run: ``timeline.npz``, exact and small, and ``timeline.json``, a trace for people's eyes.

    timeline.npz    rank stage op microbatch start end    [num_spans] each, all timelines one after the other
                    offsets                               [num_timelines + 1]; timeline i is offsets[i] : offsets[i + 1]
                    num_ranks source unit                 [num_timelines]

Readers use the first. The second is written from the same timelines and never read again, but for folders that
pipezoo 0.1.0 wrote, which have nothing else.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from pipezoo.errors import ConfigError
from pipezoo.results.chrome_trace import read_trace, write_trace
from pipezoo.results.run_dir import whole_file
from pipezoo.results.trace_waits import Kept
from pipezoo.simulator.cost import Cost
from pipezoo.simulator.timeline import Timeline
from pipezoo.validators import regular_file

TIMELINE = "timeline.npz"
TRACE = "timeline.json"
MOST_SPANS = 2_000_000  # of all timelines of a file; of more, none is written
MOST_TRACE_SPANS = 200_000  # that are exported as a trace, some 40 MB of JSON
LARGEST_FILE = 2**30  # bytes, unpacked
COLUMNS = {"rank": "i4", "stage": "i4", "op": "i1", "microbatch": "i4", "start": "f8", "end": "f8"}


def save_timelines(
    folder: str | Path,
    timelines: Sequence[Timeline],
    cost: Cost | None = None,
    clocks: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Write both files into a run's folder, whole; of many spans the first alone, of too many none.

    Args:
        cost: of the stages, for the memory that the trace shows.
        clocks: by rank, what was added to the times of a machine that is not this one, and how far off they may be.

    Returns:
        What was left out and why, in words; empty where nothing was.

    Raises:
        ValueError: a timeline has times or ranks that none can have.
        OutputError: a file cannot be written.
    """
    num_spans = sum(timeline.num_spans for timeline in timelines)
    if num_spans > MOST_SPANS:
        return f"not written: {num_spans:,} spans, of {MOST_SPANS:,} at most"
    write_timelines(Path(folder) / TIMELINE, timelines)
    if num_spans > MOST_TRACE_SPANS:
        return f"{TIMELINE} alone: {num_spans:,} spans, and {TRACE} holds {MOST_TRACE_SPANS:,} at most"
    write_trace(Path(folder) / TRACE, timelines, _kept(timelines, cost), clocks)
    return ""


def _kept(timelines: Sequence[Timeline], cost: Cost | None) -> Kept | None:
    if cost is None:
        return None
    num_stages = 1 + max((int(timeline.stage.max(initial=0)) for timeline in timelines), default=0)
    cost = cost.for_stages(num_stages)
    return Kept(cost.activation_bytes, cost.freed_by_input_grad) if cost.num_stages >= num_stages else None


def load_timelines(folder: str | Path) -> list[Timeline]:
    """The timelines of a run's folder, of an old one too; none where it has no file of them.

    Raises:
        ConfigError: the file is too large, or not one of ours.
    """
    if (path := Path(folder) / TIMELINE).exists():
        return read_timelines(path)
    if (path := Path(folder) / TRACE).exists():
        return read_trace(path)
    return []


def write_timelines(path: str | Path, timelines: Sequence[Timeline]) -> None:
    """Write the timelines to one file, whole. Raises as :func:`save_timelines`."""
    for timeline in timelines:
        timeline.check()
    arrays: dict[str, Any] = {
        name: np.concatenate([np.empty(0, kind), *(getattr(timeline, name) for timeline in timelines)], dtype=kind)
        for name, kind in COLUMNS.items()
    }
    arrays |= {
        "offsets": np.cumsum([0, *(timeline.num_spans for timeline in timelines)], dtype=np.int64),
        "num_ranks": np.array([timeline.num_ranks for timeline in timelines], np.int64),
        "source": np.array([timeline.source for timeline in timelines], np.str_),
        "unit": np.array([timeline.unit for timeline in timelines], np.str_),
    }
    with whole_file(path) as file:
        np.savez_compressed(file, **arrays)


def read_timelines(path: str | Path) -> list[Timeline]:
    """The timelines of a file that :func:`write_timelines` wrote, in its order, equal to the last bit.

    Raises:
        ConfigError: the file is missing, too large, or not one that :func:`write_timelines` wrote.
    """
    try:
        with zipfile.ZipFile(regular_file(Path(path))) as archive:
            if (size := sum(entry.file_size for entry in archive.infolist())) > LARGEST_FILE:
                raise ConfigError(f"file={path}: {size} bytes; at most {LARGEST_FILE} are read")
        with np.load(path, allow_pickle=False) as arrays:
            return _timelines({name: arrays[name] for name in (*COLUMNS, "offsets", "num_ranks", "source", "unit")})
    except OSError as error:
        raise ConfigError(f"file={path}: {error.strerror or error}") from None
    except (zipfile.BadZipFile, zlib.error, KeyError, TypeError, ValueError, EOFError, NotImplementedError) as error:
        raise ConfigError(f"file={path}: not a timeline of pipezoo ({type(error).__name__}: {error})") from None


def _timelines(arrays: Mapping[str, Any]) -> list[Timeline]:
    """Raises ValueError where the arrays are not those of timelines."""
    offsets, num_ranks = arrays["offsets"], arrays["num_ranks"]
    sizes = {len(arrays[name]) for name in COLUMNS}
    if any(arrays[name].dtype != kind or arrays[name].ndim != 1 for name, kind in COLUMNS.items()):
        raise ValueError("a column of another type")
    if offsets[0] != 0 or (np.diff(offsets) < 0).any() or sizes != {int(offsets[-1])}:
        raise ValueError("columns of another length")
    if not len(offsets) - 1 == len(num_ranks) == len(arrays["source"]) == len(arrays["unit"]):
        raise ValueError("another number of timelines")
    found = []
    for i, (low, high) in enumerate(pairwise(offsets.tolist())):
        columns = {name: arrays[name][low:high] for name in COLUMNS}
        source, unit = str(arrays["source"][i]), str(arrays["unit"][i])
        found.append(Timeline(**columns, num_ranks=int(num_ranks[i]), source=source, unit=unit))
        found[-1].check()
    return found
