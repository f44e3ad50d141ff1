"""A small Transformer encoder for texts. Vaswani et al. 2017, arXiv:1706.03762.

Norms come before each part (Xiong et al. 2020, arXiv:2002.04745) and none after the
last, so that the text's mean starts as the mean of its word vectors, which alone is
hard to beat on few texts. Attention is written out, so that it can be tapped.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdbench.api import Shape
from kdbench_text.reading import (
    WordDropout,
    cut_to_longest,
    mean_over_text,
    presence,
    token_vectors,
)

FEED_FORWARD = 2
"""Width of the inner layer, in widths of the model (the paper's 4 learns no better on
few texts)."""
POSITION_STD = 0.02
"""Of fresh position vectors; BERT's. Small beside the tokens': what is said counts
more than where."""


class Attention(nn.Module):
    """Multi-head self-attention: (B, L, D) -> (B, L, D).

    `probabilities` passes on what the softmax gives, (B, heads, L, L). What goes into
    it, padding not yet masked, is appended to `seen`.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"a width of {width} does not split into {heads} heads")
        self.heads = heads
        self.project = nn.Linear(width, 3 * width)
        self.probabilities = nn.Identity()
        self.join = nn.Linear(width, width)

    def forward(self, states: Tensor, present: Tensor, seen: list[Tensor]) -> Tensor:
        split = self.project(states).unflatten(2, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)  # each (B, h, L, D/h)
        scores = query @ key.mT / query.shape[-1] ** 0.5
        seen.append(scores)
        # Finite, so that half precision stays so; its exponential is 0.
        hidden = torch.finfo(scores.dtype).min / 2
        scores = scores.masked_fill(~present[:, None, None, :], hidden)
        weights = self.probabilities(scores.softmax(dim=-1))
        joined: Tensor = self.join((weights @ value).transpose(1, 2).flatten(2))
        return joined


class Layer(nn.Module):
    """Attention and two dense layers, added to what comes in.

    (B, L, D) -> (B, L, D), 0 at padding.
    """

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.attention = Attention(width, heads)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, FEED_FORWARD * width),
            nn.GELU(),
            nn.Linear(FEED_FORWARD * width, width),
        )
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, present: Tensor, seen: list[Tensor]) -> Tensor:
        attended = self.attention(self.norm1(states), present, seen)
        states = states + self.dropout(attended)
        states = states + self.dropout(self.feed_forward(self.norm2(states)))
        return states * present.unsqueeze(2)


class Embedding(nn.Module):
    """Token plus position: (B, L) ids -> (B, L, D), 0 at padding."""

    def __init__(self, length: int, vocabulary: int, width: int, hidden_words: float):
        super().__init__()
        self.token = token_vectors(vocabulary, width)
        self.word_dropout = WordDropout(hidden_words)
        self.position = nn.Parameter(POSITION_STD * torch.randn(length, width))

    def forward(self, ids: Tensor, present: Tensor) -> Tensor:
        tokens: Tensor = self.word_dropout(self.token(ids))
        return (tokens + self.position[: ids.shape[1]]) * present.unsqueeze(2)


class AllScores(nn.Module):
    """The layers' attention scores, (B, layers, heads, L, L), for whoever taps them."""

    @property
    def tapped(self) -> bool:
        """Whether anybody listens; else the copy is not made."""
        return bool(self._forward_hooks)

    def forward(self, seen: list[Tensor]) -> Tensor:
        return torch.stack(seen, dim=1)


class Transformer(nn.Module):
    """(B, L) token ids -> (B, outputs)."""

    def __init__(
        self,
        input_shape: Shape,
        outputs: int,
        vocabulary: int,
        *,
        layers: int,
        width: int,
        heads: int,
        dropout: float,
        word_dropout: float,
    ):
        super().__init__()
        self.embeddings = Embedding(input_shape[0], vocabulary, width, word_dropout)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(Layer(width, heads, dropout) for _ in range(layers))
        self.scores = AllScores()
        self.classifier = nn.Linear(width, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        ids = cut_to_longest(inputs)
        present = presence(ids)
        seen: list[Tensor] = []
        states = self.dropout(self.embeddings(ids, present))
        for layer in self.layers:
            states = layer(states, present, seen)
        if self.scores.tapped:
            self.scores(seen)
        logits: Tensor = self.classifier(self.dropout(mean_over_text(states, present)))
        return logits
