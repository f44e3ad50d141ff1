"""The mean of a text's word vectors. Joulin et al. 2016, arXiv:1607.01759; words are
hidden while training as in Iyyer et al. 2015 (deep averaging networks).
"""

from __future__ import annotations

from torch import Tensor, nn

from kdbench.api import Shape
from kdbench_text.reading import (
    WordDropout,
    cut_to_longest,
    mean_over_text,
    presence,
    token_vectors,
)


class Bag(nn.Module):
    """(B, L) token ids -> (B, outputs), whatever the order of the tokens."""

    def __init__(
        self,
        input_shape: Shape,
        outputs: int,
        vocabulary: int,
        *,
        width: int,
        dropout: float,
        word_dropout: float,
    ):
        super().__init__()
        del input_shape  # any length will do
        self.embeddings = token_vectors(vocabulary, width)
        self.word_dropout = WordDropout(word_dropout)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        ids = cut_to_longest(inputs)
        states = self.word_dropout(self.embeddings(ids))
        text = mean_over_text(states, presence(ids))
        logits: Tensor = self.classifier(self.dropout(text))
        return logits
