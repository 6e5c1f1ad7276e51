"""The trained weights, as the unsplit model has them: every entry of its ``state_dict()``, and no other.

model.pt             torch.load(file, weights_only=True)
model.safetensors    for every library that reads the format; tied weights are written under each of their names
model.dcp            a folder of torch.distributed.checkpoint, for trainers that read their shards of it
"""

from __future__ import annotations

from pipezoo.exports.spec import Export, ExportSpec


def state_dict(spec: ExportSpec) -> Export:
    """``model.pt``, after the last step. Raises ValueError: nothing is trained."""
    return _export(spec, "model.pt")


def safetensors(spec: ExportSpec) -> Export:
    """``model.safetensors``, after the last step. Raises ValueError: nothing is trained."""
    return _export(spec, "model.safetensors")


def dcp(spec: ExportSpec) -> Export:
    """``model.dcp``, after the last step. Raises ValueError: nothing is trained."""
    return _export(spec, "model.dcp")


def _export(spec: ExportSpec, file: str) -> Export:
    if not spec.trains:
        raise ValueError("there are no trained weights; valid: task=train")
    return Export({}, weights=file)


state_dict.wants_weights = safetensors.wants_weights = dcp.wants_weights = True  # type: ignore[attr-defined]
