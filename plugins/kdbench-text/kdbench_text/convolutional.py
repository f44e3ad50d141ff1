"""A one-layer CNN for texts. Kim 2014, arXiv:1408.5882.

Filters over 3, 4 and 5 tokens, the largest answer of each over the text, dropout of
0.5, all as in the paper. Texts are padded with zeros on both sides, so that one shorter
than a filter is read too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdbench.api import Shape
from kdbench_text.reading import (
    WordDropout,
    cut_to_longest,
    presence,
    token_vectors,
)

SPANS = (3, 4, 5)
"""Tokens that a filter sees; the paper's."""


class Filters(nn.Module):
    """(B, L, D) -> (B, L, filters): answers >= 0 of the filters of one span."""

    def __init__(self, inputs: int, filters: int, span: int):
        super().__init__()
        self.pad = nn.ConstantPad1d(((span - 1) // 2, span // 2), 0.0)
        self.convolve = nn.Conv1d(inputs, filters, span)

    def forward(self, states: Tensor) -> Tensor:
        answers: Tensor = self.convolve(self.pad(states.mT)).relu().mT
        return answers


class AllFilters(nn.Module):
    """(B, L, D) -> (B, L, 3 filters), 0 past the end of a text."""

    def __init__(self, inputs: int, filters: int):
        super().__init__()
        self.spans = nn.ModuleList(Filters(inputs, filters, span) for span in SPANS)

    def forward(self, states: Tensor, present: Tensor) -> Tensor:
        answers = torch.cat([span(states) for span in self.spans], dim=2)
        return answers * present.unsqueeze(2)


class TextCNN(nn.Module):
    """(B, L) token ids -> (B, outputs)."""

    def __init__(
        self,
        input_shape: Shape,
        outputs: int,
        vocabulary: int,
        *,
        embedding: int,
        filters: int,
        dropout: float,
        word_dropout: float,
    ):
        super().__init__()
        del input_shape  # any length will do
        self.embeddings = token_vectors(vocabulary, embedding)
        self.word_dropout = WordDropout(word_dropout)
        self.filters = AllFilters(embedding, filters)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(len(SPANS) * filters, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        ids = cut_to_longest(inputs)
        states = self.word_dropout(self.embeddings(ids))
        answers = self.filters(states, presence(ids))
        logits: Tensor = self.classifier(self.dropout(answers.amax(dim=1)))
        return logits
