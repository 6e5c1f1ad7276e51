"""What one writes without pipezoo: torch's own schedule classes under torchrun. Nothing is checked or recorded.

    torchrun --standalone --nproc-per-node=2 benchmarks/handwritten.py ScheduleInterleaved1F1B --steps 50

The model is pipezoo's MultiMLP, a layer a stage, and the data its regression, so that the losses can be compared.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage, schedules

from pipezoo.data.batch import Batch
from pipezoo.data.regression import batches
from pipezoo.models import MultiMLP

LOOPED = ("ScheduleInterleaved1F1B", "ScheduleLoopedBFS", "ScheduleInterleavedZeroBubble")
ON_A_V = ("ScheduleZBVZeroBubble", "ScheduleDualPipeV")


def stages_of(schedule: str) -> list[int]:
    """The stages of this rank."""
    rank, world = dist.get_rank(), dist.get_world_size()
    if schedule in LOOPED:
        return [rank, rank + world]
    return [rank, 2 * world - 1 - rank] if schedule in ON_A_V else [rank]


def build(schedule: str, width: int, microbatches: int, lr: float = 1e-4) -> Callable[[Batch], float | None]:
    """The pipeline of this rank: a function that does one step, and returns its loss on the rank of the last stage."""
    own = stages_of(schedule)
    num_stages = len(own) * dist.get_world_size()
    torch.manual_seed(0)
    layers = MultiMLP(width, num_stages).layers
    stages = [PipelineStage(layers[index], index, num_stages, torch.device("cpu")) for index in own]
    kind = getattr(schedules, schedule)
    runtime = kind(stages if len(own) > 1 else stages[0], microbatches, loss_fn=nn.MSELoss())
    optimizer = torch.optim.SGD([p for stage in stages for p in stage.submod.parameters()], lr=lr)
    first, last = 0 in own, num_stages - 1 in own

    def step(batch: Batch) -> float | None:
        optimizer.zero_grad()
        losses: list[torch.Tensor] = []
        inputs = batch.args if first else ()
        runtime.step(*inputs, **({"target": batch.target, "losses": losses} if last else {}))
        optimizer.step()
        return torch.stack(losses).mean().item() if losses else None

    return step


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("schedule")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--microbatches", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    step = build(options.schedule, options.width, options.microbatches)
    data = batches(options.batch_size, 0, options.width)
    seconds, loss = [], None
    for number in range(options.steps):
        began = time.perf_counter()
        loss = step(data(number))
        seconds.append(time.perf_counter() - began)
    if loss is not None:
        print(f"loss {loss:.6g}, step {statistics.median(seconds) * 1e3:.2f} ms")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
