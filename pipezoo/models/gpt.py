"""A decoder-only language model over bytes, laid out as one plain chain of modules.

    ids -> embedding -> blocks.0 -> ... -> blocks.{depth-1} -> norm -> head -> logits

Pre-norm transformer blocks, learned positions and the initialisation of GPT-2 (Radford et al., Language Models are
Unsupervised Multitask Learners, 2019). With `dropout` it drops where GPT-2 does: embeddings, attention, both branches.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipezoo.errors import ArgumentError
from pipezoo.models._split_spec import CutBeforeEach
from pipezoo.validators import check_int, check_number


def _dropout(chance: float) -> nn.Module:
    return nn.Dropout(chance) if chance else nn.Identity()


class TokenAndPosition(nn.Module):
    """Embedding of a token plus embedding of its place: [rows, context] int64 -> [rows, context, width]."""

    def __init__(self, vocab_size: int, context: int, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.context = context
        self.token = nn.Embedding(vocab_size, width)
        self.position = nn.Embedding(context, width)
        self.drop = _dropout(dropout)

    def forward(self, ids: Tensor) -> Tensor:
        if ids.shape[1] > self.context:
            raise ArgumentError("context", self.context, f"the input has {ids.shape[1]} positions")
        tokens: Tensor = self.token(ids)
        output: Tensor = self.drop(tokens + self.position.weight[: ids.shape[1]])
        return output


class CausalAttention(nn.Module):
    """Multi-head self-attention to this place and those before it: [rows, context, width] -> the same."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.features, self.dropout = heads, width // heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        # By the features of a head, for a process that shares the layer has some of the heads.
        query, key, value = self.qkv(x).unflatten(2, (3, -1, self.features)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        output: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return output


class Block(nn.Module):
    """Attention and a perceptron four times as wide, each on a residual branch: [rows, context, width] -> the same."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = CausalAttention(width, heads, dropout)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.drop = _dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.attention(self.norm1(x)))
        output: Tensor = x + self.drop(self.down(F.gelu(self.up(self.norm2(x)))))
        return output


class GPT(nn.Module):
    """The whole model; `split_spec` names the cut before every block but the first.

    Args:
        vocab_size: different tokens, >= 1; 256 for bytes.
        width: features of a position, >= 1, a multiple of `heads`.
        depth: blocks, >= 1.
        heads: attention heads, >= 1.
        context: most positions of one row, >= 1.
        tied: whether `head.weight` is the token embedding's Parameter.
        dropout: the chance that a value is dropped, 0 to below 1.
    """

    split_spec = CutBeforeEach("blocks")

    def __init__(
        self,
        vocab_size: int = 256,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        context: int = 64,
        tied: bool = False,
        dropout: float = 0.0,
    ) -> None:
        arguments = {"vocab_size": vocab_size, "width": width, "depth": depth, "heads": heads, "context": context}
        for name, value in arguments.items():
            check_int(name, value, 1)
        if width % heads:
            raise ArgumentError("width", width, f"must be a multiple of heads={heads}")
        dropout = check_number("dropout", dropout)
        if dropout >= 1:
            raise ArgumentError("dropout", dropout, "must leave something", ">= 0, < 1")
        super().__init__()
        self.embedding = TokenAndPosition(vocab_size, context, width, dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab_size, bias=False)
        self._initialise(depth)
        if tied:
            self.head.weight = self.embedding.token.weight

    def forward(self, ids: Tensor) -> Tensor:
        """[rows, context] int64 -> logits [rows, context, vocab_size]"""
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits

    @torch.no_grad()
    def _initialise(self, depth: int) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith(("attention.out.weight", "down.weight")):
                # Each block adds two branches to the residual stream: keep the sum's variance at one branch's.
                parameter.normal_(std=0.02 / math.sqrt(2 * depth))
            elif parameter.dim() == 2:
                parameter.normal_(std=0.02)
            elif name.endswith("bias"):
                parameter.zero_()
