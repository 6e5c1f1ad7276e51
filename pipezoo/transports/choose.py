"""Which transport a pipeline has: the quickest that its processes can share."""

from __future__ import annotations

from pipezoo.errors import ArgumentError
from pipezoo.runtime.build import num_cores
from pipezoo.runtime.pipeline import Pipeline
from pipezoo.runtime.transport import Lane, Transport, lanes_of
from pipezoo.transports.distributed import Distributed
from pipezoo.transports.shared_memory import SharedMemory, bytes_needed

TRANSPORTS = ("auto", "shared_memory", "distributed")
MOST_BYTES = 2**30  # mapped for messages; what is larger is sent, and freed as soon as it is used


def transport_for(pipeline: Pipeline, start_method: str, asked: str = "auto") -> Transport:
    """Shared memory between forked ranks on CPU, torch.distributed between all others; or what was asked for.

    Raises:
        ArgumentError: shared memory was asked for, and these ranks cannot share any.
    """
    why = _why_not_shared(pipeline, start_method)
    if asked == "shared_memory" and why:
        raise ArgumentError("transport", asked, why, "auto, distributed")
    if asked == "distributed" or why:
        return Distributed()
    lanes = _lanes(pipeline)
    may_spin = pipeline.num_processes <= num_cores()
    return SharedMemory(lanes, pipeline.actions, pipeline.schedule.num_microbatches, may_spin)


def _lanes(pipeline: Pipeline) -> list[Lane]:
    """The lanes for every shape of batch."""
    return [lane for wiring in pipeline.shapes.wirings for lane in lanes_of(wiring.hops, pipeline.stage_to_rank)]


def _why_not_shared(pipeline: Pipeline, start_method: str) -> str:
    """Why these ranks cannot share memory; "" where they can."""
    if pipeline.device != "cpu":
        return f"device={pipeline.device}: GPUs do not share the memory of the machine"
    if start_method != "fork":
        return f"ranks that are started by {start_method} share no memory with this process"
    needed = bytes_needed(_lanes(pipeline), pipeline.schedule.num_microbatches)
    if needed > MOST_BYTES:
        return f"the messages of two steps take {needed / 2**30:.1f} GiB, of {MOST_BYTES / 2**30:.0f} GiB at most"
    return ""
