"""Published training runs of large models, and what our plan says of the same configurations.

Sources, looked up:

* SC21: table 1 of Narayanan et al., "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM"
  (arXiv:2104.04473). The achieved FLOP/s are in the picture ``images/cases_april2021.png`` of NVIDIA/Megatron-LM at
  commit 50a4b5fa; microbatches, interleaving and recomputation are in its ``sc21/run_table_1.sh``, below ``examples/``.
  Its FLOPs count the recomputed forward: README at commit 2e90a342 gives 32 s for 175 B, batch 1536, 1024 GPUs, 138
  TFLOP/s, which is 96 B s l h^2 (1 + s / 6h + V / 16lh), and that is 4 forwards of every block.
* H100: the table ``images/model_table.png`` of NVIDIA/Megatron-LM's README (July 2024; commit 937571cf). Sequence 4096,
  vocabulary 131,072. It says nothing of microbatches, interleaving and recomputation: our plan chooses them.
* Llama 3: three rows of TFLOP/s by GPUs, TP, CP, PP, tokens a batch, as a slide of the report's authors has them
  (https://glennklockwood.com/garden/llama-3.1), sizes of the model from arXiv:2407.21783. The row with CP 16 is left
  out: there is no context parallelism here. Recomputation and memory were not found: both ways are predicted.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any

import yaml  # type: ignore[import-untyped]

from pipezoo.installed import conf_dir
from pipezoo.planner.devices.candidate import Candidate
from pipezoo.planner.devices.evaluate import Job, Outcome
from pipezoo.planner.devices.options import DeviceOptions
from pipezoo.planner.devices.search import make_device_plans
from pipezoo.topology.placement import Grid
from pipezoo.topology.topology import Topology, topology


@dataclass(frozen=True)
class Run:
    """One published row; ``achieved`` in TFLOP/s and GPU. 0 microbatch rows, 0 stages a rank: not published."""

    name: str
    layers: int
    hidden: int
    heads: int
    tp: int
    pp: int
    devices: int
    batch: int
    achieved: float
    rows: int = 0
    stages_per_rank: int = 0

    @property
    def dp(self) -> int:
        return self.devices // (self.tp * self.pp)


SC21 = (
    Run("1.7B", 24, 2304, 24, 1, 1, 32, 512, 137, 16, 1),
    Run("3.6B", 30, 3072, 32, 2, 1, 64, 512, 138, 16, 1),
    Run("7.5B", 36, 4096, 32, 4, 1, 128, 512, 142, 16, 1),
    Run("18B", 40, 6144, 48, 8, 1, 256, 1024, 135, 8, 1),
    Run("39B", 48, 8192, 64, 8, 2, 512, 1536, 138, 4, 1),
    Run("76B", 60, 10240, 80, 8, 4, 1024, 1792, 140, 2, 3),
    Run("145B", 80, 12288, 96, 8, 8, 1536, 2304, 148, 2, 2),
    Run("310B", 96, 16384, 128, 8, 16, 1920, 2160, 155, 1, 2),
    Run("530B", 105, 20480, 128, 8, 35, 2520, 2520, 163, 1, 3),
    Run("1T", 128, 25600, 160, 8, 64, 3072, 3072, 163, 1, 1),
)
H100 = (
    Run("1.7B", 24, 2048, 16, 1, 1, 48, 192, 408.8),
    Run("7.1B", 30, 4096, 32, 2, 1, 96, 192, 465.9),
    Run("16B", 32, 6144, 48, 4, 1, 192, 192, 489.1),
    Run("32B", 48, 7168, 56, 8, 1, 384, 192, 459.6),
    Run("70B", 84, 8192, 64, 8, 2, 768, 384, 419.7),
    Run("119B", 92, 10240, 80, 8, 4, 1536, 768, 420.5),
    Run("177B", 96, 12288, 96, 8, 6, 2304, 1152, 432.8),
    Run("314B", 96, 16384, 128, 8, 8, 3072, 1536, 474.4),
    Run("462B", 112, 18432, 144, 8, 16, 6144, 3072, 459.9),
)
LLAMA3 = (  # 16 M tokens are 2048 rows of 8192
    Run("405B, 8,192 GPUs", 126, 16384, 128, 8, 16, 8192, 2048, 430),
    Run("405B, 16,384 GPUs", 126, 16384, 128, 8, 16, 16384, 2048, 400),
)
FITTED = slice(0, None, 2)  # every other row; the rest is held against what was fitted


@functools.cache
def sc21(run: Run, efficiency: float | None = None) -> tuple[float, Outcome]:
    """TFLOP/s that we predict, recomputation counted, of exactly what ran: 1F1B, interleaved where it was."""
    sizes = {"layers": run.layers, "hidden": run.hidden, "heads": run.heads, "ffn": 4 * run.hidden}
    sizes |= {"vocabulary": 51200, "sequence": 2048, "gated": False, "tied": True, "dropout": True, "flash": False}
    options = DeviceOptions(
        run.devices, sizes, run.batch, float32_gradients=False, sequence_parallel=False, tp_overlap=0.0, dp_overlap=0.0
    )
    schedule = "interleaved_1f1b" if run.stages_per_rank > 1 else "1f1b"
    microbatches = run.batch // (run.dp * run.rows)
    grid = Grid(run.pp, run.dp, run.tp)
    candidate = Candidate(grid, schedule, run.stages_per_rank, run.rows, microbatches, True, "replicate")
    outcome = Job(candidate, options, cluster("a100", efficiency)).play()
    return options.model.step_flops(run.batch, recomputed=True) / outcome.step / run.devices / 1e12, outcome


@functools.cache
def h100(run: Run, efficiency: float | None = None) -> tuple[float, Outcome]:
    """TFLOP/s of the model that we predict for the best microbatches, interleaving and recomputation that fit."""
    sizes = {"layers": run.layers, "hidden": run.hidden, "heads": run.heads, "ffn": 4 * run.hidden}
    sizes |= {"vocabulary": 131072, "sequence": 4096, "gated": False}
    return _chosen(run, sizes, efficiency, tp_overlap=0.5)


@functools.cache
def llama3(run: Run, efficiency: float | None = None) -> tuple[float, Outcome]:
    """The same of Llama 3 405B without recomputation, whatever memory that takes; its first and last stage have a block
    fewer."""
    return _llama3(run, efficiency, memory="200GB", recompute=("none",))


@functools.cache
def llama3_in_memory(run: Run, efficiency: float | None = None) -> tuple[float, Outcome]:
    """The same in the memory of the devices, as we count it."""
    return _llama3(run, efficiency)


def _llama3(run: Run, efficiency: float | None, **more: Any) -> tuple[float, Outcome]:
    sizes = {"layers": run.layers, "hidden": run.hidden, "heads": run.heads, "kv_heads": 8, "ffn": 53248}
    sizes |= {"vocabulary": 128256, "sequence": 8192}
    return _chosen(run, sizes, efficiency, tp_overlap=0.0, rows=(1,), **more)


def _chosen(run: Run, sizes: dict[str, Any], efficiency: float | None, **more: Any) -> tuple[float, Outcome]:
    options = DeviceOptions(
        run.devices,
        sizes,
        run.batch,
        pp=(run.pp,),
        dp=(run.dp,),
        tp=(run.tp,),
        schedules=("1f1b", "interleaved_1f1b"),
        stages_per_rank=tuple(range(1, 17)),
        dp_with=("fsdp",),
        **more,
    )
    plans = make_device_plans(options, cluster("h100", efficiency))
    return plans.flops(plans.best) / 1e12, plans.best


@functools.cache
def cluster(name: str, efficiency: float | None = None) -> Topology:
    """A topology of ``conf/``, with another efficiency where one is given."""
    arguments = yaml.safe_load((conf_dir() / "topology" / f"{name}.yaml").read_text(encoding="utf-8"))
    del arguments["_target_"]
    made = topology(**arguments)
    assert made.device is not None
    return made if efficiency is None else replace(made, device=replace(made.device, efficiency=efficiency))
