"""Losses that torch.nn does not have in the shape a pipeline needs, one per file."""

from pipezoo.losses.auxiliary import with_auxiliary
from pipezoo.losses.token_cross_entropy import TokenCrossEntropy

__all__ = ["TokenCrossEntropy", "with_auxiliary"]
