"""On a GPU: nccl with one rank a device, and the same verdict."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(torch.cuda.device_count() == 0, reason="needs a CUDA device, and this machine has none"),
]


def train(folder: Path, *words: str) -> dict[str, object]:
    command = [sys.executable, "-m", "pipezoo", "device=cuda", "steps=3", f"hydra.run.dir={folder}", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads((folder / "result.json").read_text())
    return result


@pytest.mark.parametrize(
    "words",
    [
        "model=example_code stages=4 ranks=1 schedule=looped_bfs",
        "model=multi_mlp stages=4 ranks=1 schedule=interleaved_1f1b",
        "model=multi_mlp_kwargs stages=4 ranks=1 schedule=interleaved_zero_bubble",
        "model=multi_mlp_with_dw stages=2 ranks=1 schedule=zbv weight_grad=module",
        "model=model_with_kwargs stages=2 ranks=1 schedule=dualpipev",
        "model=gpt stages=2 ranks=1 schedule=zbv dtype=bfloat16",
    ],
)
def test_a_gpu_computes_what_one_device_computes(tmp_path: Path, words: str) -> None:
    assert train(tmp_path / "run", *words.split())["verified"] == "exact"


def test_more_ranks_than_gpus_is_one_line() -> None:
    num_gpus = torch.cuda.device_count()
    command = [sys.executable, "-m", "pipezoo", "device=cuda", "model=multi_mlp", f"ranks={num_gpus + 1}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 2
    assert f"ranks={num_gpus + 1} need {num_gpus + 1} GPUs, and this machine has {num_gpus}" in done.stderr
