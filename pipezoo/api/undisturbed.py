"""What a run in the caller's process changes for a while, and gives back."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

VARIABLES = ("GLOO_SOCKET_IFNAME", "PYTORCH_NVML_BASED_CUDA_CHECK")


@contextmanager
def undisturbed() -> Iterator[None]:
    """Gradients are on inside; random numbers, threads of torch and variables are afterwards what they were."""
    ours, numpys = random.getstate(), np.random.get_state()
    threads, variables = torch.get_num_threads(), {name: os.environ.get(name) for name in VARIABLES}
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)
        torch.set_num_threads(threads)
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
