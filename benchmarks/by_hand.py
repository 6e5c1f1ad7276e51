"""What one writes without pipezoo: a pipeline of equal perceptrons under torchrun. Nothing is checked or recorded.

torchrun --standalone --nproc-per-node=4 benchmarks/by_hand.py --steps 10
"""

from __future__ import annotations

import argparse
import os
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

WIDTH, MICROBATCHES, ROWS = 256, 8, 4


class MLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net1, self.relu, self.net2 = nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.net2(self.relu(self.net1(x)))
        return y


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=10)
    steps = parser.parse_args().steps
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    layers = [MLP(WIDTH) for _ in range(max(4, world))]
    per_stage = len(layers) // world
    module = nn.Sequential(*layers[rank * per_stage : (rank + 1) * per_stage])
    stage = PipelineStage(module, rank, world, torch.device("cpu"))
    schedule = Schedule1F1B(stage, MICROBATCHES, loss_fn=nn.MSELoss())
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    seconds = []
    for _ in range(steps):
        x = torch.randn(ROWS * MICROBATCHES, WIDTH, generator=generator)
        target = torch.randn(ROWS * MICROBATCHES, WIDTH, generator=generator)
        began = time.perf_counter()
        optimizer.zero_grad()
        losses: list[torch.Tensor] = []
        if rank == 0:
            schedule.step(x)
        elif rank == world - 1:
            schedule.step(target=target, losses=losses)
        else:
            schedule.step()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    if rank == world - 1:
        print(f"loss {torch.stack(losses).mean().item():.4f}, step {sorted(seconds)[steps // 2] * 1e3:.2f} ms")
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
