"""A transformer on paper: what it has in parameters, FLOPs and activations, from its sizes alone.

    block     norm, attention (q, k, v, scores, out), norm, feed-forward (up, gate where gated, down)
    ends      embedding before the first block, head behind the last

Norms count as parameters; biases are left out (less than one part in a thousand at hidden 8192).
"""

from __future__ import annotations

from dataclasses import dataclass

from pipezoo.errors import ArgumentError
from pipezoo.validators import check_bool, check_int

COUNTS = ("layers", "hidden", "heads", "ffn", "vocabulary", "sequence")
BYTES = 2  # of an activation: 16 bits


@dataclass(frozen=True)
class Transformer:
    """What a decoder has.

    Args:
        layers: blocks.
        hidden: features of a token.
        heads: heads of the attention, divide ``hidden``.
        ffn: features inside of the feed-forward part.
        vocabulary: tokens there are.
        sequence: tokens of a row.
        kv_heads: heads of keys and values, divide ``heads``; None: as many as heads.
        gated: whether the feed-forward part has a gate beside its first product (SwiGLU).
        tied: whether embedding and head are one tensor; both ends of a pipeline hold it.
        dropout: whether the block drops out, and keeps masks for it.
        flash: whether the attention keeps no scores and leaves out what the causal mask hides.

    Raises:
        ArgumentError: a count below 1, or heads that do not divide.
    """

    layers: int
    hidden: int
    heads: int
    ffn: int
    vocabulary: int
    sequence: int
    kv_heads: int | None = None
    gated: bool = True
    tied: bool = False
    dropout: bool = False
    flash: bool = True

    def __post_init__(self) -> None:
        for name in COUNTS:
            check_int(name, getattr(self, name), 1)
        for name in ("gated", "tied", "dropout", "flash"):
            check_bool(name, getattr(self, name))
        if self.kv_heads is None:
            object.__setattr__(self, "kv_heads", self.heads)
        check_int("kv_heads", self.kv_heads, 1)
        if self.hidden % self.heads:
            raise ArgumentError("heads", self.heads, f"does not divide hidden={self.hidden}")
        if self.heads % self.num_kv_heads:
            raise ArgumentError("kv_heads", self.kv_heads, f"does not divide heads={self.heads}")

    @property
    def num_kv_heads(self) -> int:
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def kv(self) -> int:
        """Features of the keys of a token; values have as many."""
        return self.num_kv_heads * (self.hidden // self.heads)

    @property
    def products(self) -> list[tuple[int, int, str]]:
        """The products of a block with a matrix of parameters: features in, out, and which of them ``tp`` cuts."""
        up = self.ffn * (2 if self.gated else 1)
        return [
            (self.hidden, self.hidden + 2 * self.kv, "out"),
            (self.hidden, self.hidden, "in"),
            (self.hidden, up, "out"),
            (self.ffn, self.hidden, "in"),
        ]

    @property
    def layer_parameters(self) -> int:
        """Of one block, norms included."""
        return sum(inner * outer for inner, outer, _ in self.products) + 2 * self.hidden

    @property
    def end_parameters(self) -> int:
        """Of the embedding; the head has as many."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """Of the whole model."""
        return self.layers * self.layer_parameters + self.end_parameters * (1 if self.tied else 2) + self.hidden

    @property
    def layer_flops(self) -> float:
        """FLOPs of a forward of one block for one token, attention counted in full, whatever its mask."""
        return 2.0 * sum(inner * outer for inner, outer, _ in self.products) + 4.0 * self.sequence * self.hidden

    @property
    def head_flops(self) -> float:
        """The same of the head."""
        return 2.0 * self.end_parameters

    def step_flops(self, rows: int, recomputed: bool = False) -> float:
        """FLOPs of a training step of so many rows: a forward and a backward that is two; with recomputation one more
        forward of every block, as the Megatron papers count achieved FLOPs."""
        times = 4 if recomputed else 3
        return rows * self.sequence * (times * self.layers * self.layer_flops + 3 * self.head_flops)

    def activation_bytes(self, tp: int, sequence_parallel: bool) -> float:
        """Bytes that a block keeps of one token for its backward, on one of ``tp`` shards.

        What every shard has whole are the inputs of norms and products, unless they are cut along the sequence.
        Of a plain block (``ffn`` 4 ``hidden``) with dropout this is 34 ``hidden`` and, without flash, 5 ``heads``
        ``sequence``, as Korthikanti et al. count (arXiv:2205.05198).
        """
        whole = 4 * BYTES * self.hidden  # inputs of two norms and of two products
        whole += 2 * self.hidden if self.dropout else 0
        inside = self.ffn * BYTES * (3 if self.gated else 2)  # products of the feed-forward part, and their activation
        inside += BYTES * (self.hidden + 2 * self.kv + self.hidden)  # q, k, v, the input of the last product
        scores = BYTES + (BYTES + 1 if self.dropout else 0)  # the softmax; what is dropped out, and its mask
        inside += 0 if self.flash else scores * self.heads * self.sequence
        return whole / (tp if sequence_parallel else 1) + inside / tp

    def input_bytes(self, tp: int, sequence_parallel: bool) -> float:
        """The same where a block is recomputed: its input."""
        return BYTES * self.hidden / (tp if sequence_parallel else 1)
