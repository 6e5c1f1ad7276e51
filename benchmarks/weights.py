"""Who splits a backward: one step with weight_grad=deferred over one with weight_grad=autograd, in turn.

    python -m benchmarks.weights --width 512

Both ways run in the same process, on virtual ranks, so that what else the machine does meets both. The whole backward
stands beside them: a schedule that splits has to win more than it pays.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pipezoo.config.compose import compose, load
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.supervisor.heap import keep_freed_memory

WARM = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=512, help="features of every layer")
    parser.add_argument("--rows", type=int, default=32, help="of a microbatch")
    parser.add_argument("--schedule", default="interleaved_zero_bubble")
    parser.add_argument("--turns", type=int, default=40)
    asked = parser.parse_args()
    words = [
        "model=multi_mlp", "split=modules", "stages=4", "microbatches=8", f"model.d_hid={asked.width}",
        f"batch_size={8 * asked.rows}", "launch=virtual", f"schedule={asked.schedule}", "verify=false", "steps=2",
    ]  # fmt: skip
    keep_freed_memory()  # as ranks do
    ways = {way: _step([*words, f"weight_grad={way}"]) for way in ("autograd", "deferred")}
    ways["whole"] = _step([word for word in words if "schedule=" not in word] + ["schedule=interleaved_1f1b"])
    ratios: dict[str, list[float]] = {"deferred": [], "whole": []}
    times = []
    for turn in range(WARM + asked.turns):
        took = {way: _seconds(step) for way, step in ways.items()}
        if turn >= WARM:
            times.append(took["autograd"])
            for way, found in ratios.items():
                found.append(took[way] / took["autograd"])
    print(
        f"{asked.schedule}, width {asked.width}, {asked.rows} rows: {statistics.median(times) * 1e3:.1f} ms of CPU by "
        f"autograd's split, deferred {statistics.median(ratios['deferred']):.2f} of that, whole backwards "
        f"{statistics.median(ratios['whole']):.2f} (medians of {asked.turns} turns)"
    )


def _step(words: list[str]) -> Callable[[], object]:
    """One step of the executor, without the optimizer."""
    import torch

    from pipezoo.runtime.assemble import rank_stage
    from pipezoo.runtime.build import build_pipeline
    from pipezoo.runtime.executor import RankProgram
    from pipezoo.runtime.microbatching import scaled
    from pipezoo.runtime.transport import NoMessages

    with tempfile.TemporaryDirectory() as scratch:
        pipeline, _ = build_pipeline(load(*compose(words), Allowlist()), Path(scratch))
    num_microbatches, device = pipeline.schedule.num_microbatches, torch.device("cpu")
    program = RankProgram(
        stages=[rank_stage(pipeline, index, device) for index in range(pipeline.stages.num_stages)],
        rank=0,
        actions=pipeline.actions[0],
        stage_to_rank=pipeline.stage_to_rank,
        num_microbatches=num_microbatches,
        device=device,
        loss=scaled(pipeline.loss, num_microbatches),
        hops=pipeline.stages.wiring.hops,
        lanes=[],
        endpoint=NoMessages(),
        note=lambda index: None,
    )
    executor, batch = pipeline.executor.of_rank(program), pipeline.batch(0)
    return lambda: executor.step(batch.args, batch.target)


def _seconds(step: Callable[[], object]) -> float:
    """CPU seconds of a step behind another one of its kind, as in a run: with its own weights in the cache."""
    step()
    began = time.process_time()
    step()
    return time.process_time() - began


if __name__ == "__main__":
    main()
