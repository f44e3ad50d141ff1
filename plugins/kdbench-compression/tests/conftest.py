"""What the tests share: one thread, and networks that look trained."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from kdbench import Model


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _no_choice_of_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KDBENCH_PLUGINS", raising=False)


@pytest.fixture
def lived_in() -> Callable[..., nn.Module]:
    """A model with batch norm that is not at its start, some factors negative."""

    def build(model: Model, shape: tuple[int, ...]) -> nn.Module:
        network = model.build(shape, 10)
        shake(network)
        return network.eval()

    return build


def shake(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)


@pytest.fixture
def trained() -> Callable[..., nn.Module]:
    """An int8 student after a few steps, in eval mode."""

    def build(model: Model, shape: tuple[int, ...], steps: int = 5) -> nn.Module:
        network = model.build(shape, 10)
        shake(network)
        train(network, shape, steps)
        return network.eval()

    return build


def train(network: nn.Module, shape: tuple[int, ...], steps: int) -> None:
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    network.train()
    for _ in range(steps):
        inputs = torch.randn(32, *shape) * 2 + 1
        loss = nn.functional.cross_entropy(network(inputs), torch.randint(10, (32,)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
