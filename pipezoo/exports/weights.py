"""The trained weights, as the unsplit model has them: every entry of its ``state_dict()``, and no other.

model.pt             torch.load(file, weights_only=True)
model.safetensors    for every library that reads the format; tied weights are written under each of their names
model.dcp            a folder of torch.distributed.checkpoint, for trainers that read their shards of it

With ``weights=ema`` what learns has its moving average for a value; all else is as the training left it.
"""

from __future__ import annotations

from pipezoo.errors import ArgumentError
from pipezoo.exports.spec import Export, ExportSpec
from pipezoo.validators import check_word

WEIGHTS = ("model", "ema")


def state_dict(spec: ExportSpec, weights: str = "model") -> Export:
    """``model.pt``, after the last step. Raises ValueError: nothing is trained."""
    return _export(spec, "model.pt", weights)


def safetensors(spec: ExportSpec, weights: str = "model") -> Export:
    """``model.safetensors``, after the last step. Raises ValueError: nothing is trained."""
    return _export(spec, "model.safetensors", weights)


def dcp(spec: ExportSpec, weights: str = "model") -> Export:
    """``model.dcp``, after the last step. Raises ValueError: nothing is trained."""
    return _export(spec, "model.dcp", weights)


def _export(spec: ExportSpec, file: str, weights: str) -> Export:
    check_word("weights", weights, WEIGHTS)
    if not spec.trains:
        raise ValueError("there are no trained weights; valid: task=train")
    if weights == "ema" and not spec.averages:
        raise ArgumentError("weights", weights, "no average is kept", "optimizer.ema=0.999 as well, or model")
    return Export({}, weights=file, averages=weights == "ema")


state_dict.wants_weights = safetensors.wants_weights = dcp.wants_weights = True  # type: ignore[attr-defined]
