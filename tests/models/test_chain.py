"""Networks that are a chain of layers, and those that are none."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kdbench.api import UserError
from kdbench.models.chain import NoChainError, chain_of
from kdbench.models.mlp import mlp
from kdbench.plan import make_plan


class Functional(nn.Module):
    """Two dense layers, with something between them that is no layer."""

    def __init__(self, between=F.relu, tied=False):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.between, self.tied = between, tied

    def forward(self, x):
        hidden = self.between(self.first(x))
        return self.second(self.first(hidden) if self.tied else hidden)


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (Functional(), "second does not read"),
        (Functional(lambda x: F.dropout(x, 0.5)), "second does not read"),
        (Functional(lambda x: x, tied=True), "uses a layer twice"),
        (nn.Sequential(nn.Linear(6, 6), nn.Dropout()), "1 is a Dropout"),
        (nn.Sequential(nn.BatchNorm1d(6, affine=False)), "no ordinary BatchNorm1d"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)), "Weight"),
    ],
)
def test_what_is_no_chain_is_told_why(network, why):
    state = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(NoChainError, match=why):
        chain_of(network, torch.randn(4, 6))
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())


def test_a_chain_knows_where_its_modules_read_and_write():
    chain = chain_of(
        mlp(24, 16, batch_norm=True).build((1, 8, 8), 10), torch.randn(4, 1, 8, 8)
    )
    assert chain.layers[:2] == ("layers.0.0", "layers.0.1")
    assert chain.place_of("layers.0") == chain.place_of("layers.1.0:input") == 3
    assert chain.place_of("classifier:input") == chain.place_of("layers") == 6
    assert chain.place_of("layers.0:nothing") is None


def test_a_suite_that_cannot_be_stacked_is_refused(host, helpers):
    suite = helpers["suite"](host)
    recipe = suite.recipe.model_copy(update={"stack": True})
    with pytest.raises(UserError, match=r"stack = true in .* convnet_6 is none"):
        make_plan(suite.model_copy(update={"recipe": recipe}), host, {})
    fine = suite.model_copy(update={"recipe": recipe, "pairs": ("digits-mlp",)})
    assert make_plan(fine, host, {}).todo
