"""TinyBERT's distillation of Transformers. Jiao et al. 2019, arXiv:1909.10351,
section 3.1, equations 7-11.

E are the embeddings, H the layers' states, A their attention scores before the softmax
(as in the paper), g(m) the teacher's layer at the depth of the student's layer m:
embedding = MSE(E_s W_e, E_t)
hidden    = sum_m MSE(H_s[m] W_h, H_t[g(m)])
attention = sum_m 1/h sum_i MSE(A_s[m, i], A_t[g(m), i])
kd        = -softmax(z_t / T) . log_softmax(z_s / T)
loss = embedding_weight * embedding + hidden_weight * hidden
     + attention_weight * attention + kd_weight * kd + ce_weight * CE

W_e and W_h are learned. Where the numbers of heads differ, the means over the heads are
compared. All terms are trained at once (equation 6 with every lambda 1); the authors
train those of the layers first and that of the logits after. Their further stage on a
general corpus and their augmented texts are no part of this.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdbench import Batch, Strategy, Tapped, label_loss
from kdbench_text.distances import score_mse, soft_cross_entropy, state_mse
from kdbench_text.layers import (
    at_same_depth,
    layer_states,
    layer_widths,
    same_length,
    text_positions,
    why_not_layered,
)

SCORES = "scores"
"""Tap of the attention scores of all layers, (B, layers, heads, L, L)."""


class Projections(nn.Module):
    """W_e and W_h: from the student's widths to the teacher's."""

    def __init__(self, embeddings: tuple[int, int], states: tuple[int, int]):
        super().__init__()
        self.embeddings = nn.Linear(*embeddings, bias=False)
        self.states = nn.Linear(*states, bias=False)


@dataclass(frozen=True, kw_only=True)
class TinyBERTAttention(Strategy):
    """Match embeddings, states and attention of a Transformer, layer by layer."""

    name = "tinybert_attention"
    family = "BERT distillation"
    paper = "Jiao et al. 2019, arXiv:1909.10351"
    taps = ("embeddings", "stages", SCORES)

    temperature: float = 1.0  # dimensionless, > 0; paper
    embedding_weight: float = 1.0  # >= 0, on the mean square; paper
    hidden_weight: float = 1.0  # >= 0, on each layer's mean square; paper
    attention_weight: float = 1.0  # >= 0, on each layer's mean square; paper
    kd_weight: float = 1.0  # >= 0; paper
    ce_weight: float = 0.0  # >= 0, on the labels; paper, which uses none

    def supports(self, student: Tapped, teacher: Tapped | None) -> str | None:
        reason = why_not_layered(student, teacher)
        if reason or teacher is None:
            return reason
        for model in (student, teacher):
            layers = len(model.stages)
            if len(set(layer_widths(model))) > 1:
                return f"the layers of {model.name} differ in width; one W_h fits none"
            if model.shapes[SCORES][0] != layers:
                return f"{model.name} has attention in some of its {layers} layers only"
        return None

    def adapters(self, student: Tapped, teacher: Tapped) -> nn.Module:
        return Projections(
            (student.shapes["embeddings"][-1], teacher.shapes["embeddings"][-1]),
            (layer_widths(student)[0], layer_widths(teacher)[0]),
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        project = batch.adapters
        assert isinstance(project, Projections)  # noqa: S101 (built by adapters() above)
        own, wanted = batch.student.features, batch.teacher.features
        states, goals = layer_states(own), layer_states(wanted)
        present = text_positions(batch, same_length([*states, *goals]))
        hidden, attention = [], []
        for m, g in enumerate(at_same_depth(len(states), len(goals))):
            state = project.states(_as(states[m], project.states))
            hidden.append(state_mse(state, goals[g - 1], present))
            scores = own[SCORES][:, m], wanted[SCORES][:, g - 1]
            attention.append(score_mse(*scores, present))
        embedded = project.embeddings(_as(own["embeddings"], project.embeddings))
        embedding = state_mse(embedded, wanted["embeddings"], present)
        logits = batch.student.logits
        kd = soft_cross_entropy(logits, batch.teacher.logits, self.temperature)
        ce = label_loss(batch.task, logits, batch.targets)
        return {
            "embedding": self.embedding_weight * embedding,
            "hidden": self.hidden_weight * torch.stack(hidden).sum(),
            "attention": self.attention_weight * torch.stack(attention).sum(),
            "kd": self.kd_weight * kd,
            "ce": self.ce_weight * ce,
        }


def _as(x: Tensor, layer: nn.Linear) -> Tensor:
    """In the layer's own precision."""
    return x.to(layer.weight.dtype)
