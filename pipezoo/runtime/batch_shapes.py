"""Every batch against the first one, whose shapes are those that messages are received in.

batch 0   (16, 8) int64     two processes or more: all others are like it
batch 1   (16, 6) int64     one process: any shape whose rows make equal microbatches, since nothing is sent
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pipezoo.errors import ConfigError


def check_batch(
    step: int,
    tensors: Sequence[torch.Tensor],
    first: Sequence[torch.Tensor],
    num_processes: int,
    num_microbatches: int,
) -> None:
    """Refuse a batch that this run cannot take.

    Args:
        tensors: the inputs of the batch of this step, and last its target.
        first: the same of the first batch.

    Raises:
        ConfigError: one line with the step and both shapes.
    """
    if len(tensors) != len(first):
        raise ConfigError(
            f"data: the batch of step {step} has {len(tensors) - 1} inputs, and that of step 0 has {len(first) - 1}"
        )
    rows = len(tensors[0]) if tensors[0].dim() else 0
    for index, (tensor, like) in enumerate(zip(tensors, first, strict=True)):
        what = "the target" if index == len(first) - 1 else f"input {index}"
        if tensor.dtype != like.dtype or (num_processes > 1 and tensor.shape != like.shape):
            raise ConfigError(
                f"data: {what} is {_words(tensor)} in step {step}, and was {_words(like)} in step 0; "
                "valid: batches of one shape, or launch=virtual, which sends no messages"
            )
        if not tensor.dim() or len(tensor) != rows or not rows or rows % num_microbatches:
            raise ConfigError(
                f"data: {what} is {_words(tensor)} in step {step}, and was {_words(like)} in step 0; "
                f"valid: as many rows in every tensor, a multiple of microbatches={num_microbatches}"
            )


def _words(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype)[6:]}"
