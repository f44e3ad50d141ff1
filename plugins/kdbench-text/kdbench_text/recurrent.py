"""A bidirectional LSTM for texts. Hochreiter & Schmidhuber 1997; as a student of
BERT: Tang et al. 2019, arXiv:1903.12136, section 3.1.

Each direction's state after its last token goes to the classifier, as in that paper.
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


class Bidirectional(nn.Module):
    """(B, L, D) -> (B, L, 2H), 0 at padding: one LSTM reads each text from its end.

    Texts are reversed one by one instead of packed, so that neither direction passes
    through padding and shapes are known without data.
    """

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.forwards = nn.LSTM(inputs, width, batch_first=True)
        self.backwards = nn.LSTM(inputs, width, batch_first=True)

    def forward(self, states: Tensor, present: Tensor) -> Tensor:
        place = torch.arange(states.shape[1], device=states.device)
        end = present.sum(dim=1, keepdim=True)  # (B, 1)
        mirror = torch.where(place < end, end - 1 - place, place)  # (B, L), own inverse
        ahead, _ = self.forwards(states)
        back, _ = self.backwards(_reordered(states, mirror))
        both = torch.cat((ahead, _reordered(back, mirror)), dim=2)
        return both * present.unsqueeze(2)


def last_states(states: Tensor, present: Tensor) -> Tensor:
    """(B, L, 2H) -> (B, 2H): ahead at a text's last token, back at its first."""
    ahead, back = states.chunk(2, dim=2)
    last = present.sum(dim=1)[:, None, None] - 1
    ahead = ahead.gather(1, last.expand(-1, -1, ahead.shape[2])).squeeze(1)
    return torch.cat((ahead, back[:, 0]), dim=1)


def _reordered(states: Tensor, place: Tensor) -> Tensor:
    return states.gather(1, place.unsqueeze(2).expand_as(states))


class BiLSTM(nn.Module):
    """(B, L) token ids -> (B, outputs): one bidirectional layer and its last states."""

    def __init__(
        self,
        input_shape: Shape,
        outputs: int,
        vocabulary: int,
        *,
        embedding: int,
        width: int,
        dropout: float,
        word_dropout: float,
    ):
        super().__init__()
        del input_shape  # any length will do
        self.embeddings = token_vectors(vocabulary, embedding)
        self.word_dropout = WordDropout(word_dropout)
        self.dropout = nn.Dropout(dropout)
        self.lstm = Bidirectional(embedding, width)
        self.classifier = nn.Linear(2 * width, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        ids = cut_to_longest(inputs)
        present = presence(ids)
        states = self.dropout(self.word_dropout(self.embeddings(ids)))
        states = self.lstm(states, present)
        logits: Tensor = self.classifier(self.dropout(last_states(states, present)))
        return logits
