"""Small real data, targets of two kinds, and a way to run a suite in this process."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from kdbench_sklearn import zoo
from kdbench_sklearn.zoo import models
from torch import Tensor

from kdbench import Model
from kdbench.config import changed, read_suite
from kdbench.data.digits import load as load_digits
from kdbench.plugins import Host
from kdbench.session import Options, Session
from kdbench.store import load

ITEMS = 160


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def _small() -> Iterator[None]:
    """Fewer trees than users get: none of the rules under test depends on it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo, "ROUNDS", 8)
        patch.setattr(zoo, "FOREST", 8)
        yield


@pytest.fixture(autouse=True)
def _no_choice_of_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KDBENCH_PLUGINS", raising=False)


@dataclass(frozen=True)
class Digits:
    """`inputs` (N, 1, 8, 8), `labels` (N,), one-hot and soft targets (N, 10)."""

    inputs: Tensor
    labels: Tensor
    hard: Tensor
    soft: Tensor
    numbers: Tensor
    others: Tensor


@pytest.fixture(scope="session")
def digits() -> Digits:
    data = load_digits(None, False)
    x = (data.train.inputs.float() - data.mean[0]) / data.std[0]
    labels = data.train.targets[:ITEMS]
    stream = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(ITEMS, 10, generator=stream)
    logits[torch.arange(ITEMS), labels] += 4
    hard = torch.nn.functional.one_hot(labels, 10).float()
    pixels = x[:ITEMS].flatten(1)
    numbers = torch.stack([pixels.sum(1), pixels[:, 20] - pixels[:, 43]], 1)
    return Digits(
        inputs=x[:ITEMS],
        labels=labels,
        hard=hard,
        soft=0.5 * hard + 0.5 * logits.softmax(1),
        numbers=(numbers - numbers.mean(0)) / numbers.std(0),
        others=x[ITEMS : ITEMS + 100],
    )


@pytest.fixture(params=models(), ids=lambda model: model.name)
def model(request: pytest.FixtureRequest) -> Model:
    """Each model that the plugin offers."""
    return request.param


@pytest.fixture(scope="session")
def build():
    """A seeded module of a model for digits."""

    def made(model: Model, seed: int = 0, outputs: int = 10):
        torch.manual_seed(seed)
        return model.build((1, 8, 8), outputs)

    return made


@pytest.fixture(scope="session")
def fitted(build, digits):
    """A model fitted to "hard", "soft" or "numbers"; fitted once, handed out as copies.

    In the built-in way: the estimator of seed 0 on all of `digits`.
    """
    known = {}

    def made(model: Model, kind: str = "hard"):
        if (model.name, kind) not in known:
            targets = getattr(digits, kind)
            module = build(model, outputs=targets.shape[1])
            module.fit(digits.inputs, targets)
            known[model.name, kind] = module
        return copy.deepcopy(known[model.name, kind])

    return made


@pytest.fixture(scope="session")
def host() -> Host:
    return Host()


@pytest.fixture(scope="session")
def run_suite():
    """Run the plugin's suite, changed, in this process: failures and records."""

    def run(out: Path, host: Host, **changes: object):
        suite = changed(
            read_suite(host.get("suites", "classic-ml").thing.path),
            {"datasets": ["digits"], "seeds": 1, **changes},
        )
        options = Options(
            out=out,
            device="cpu",
            data_dir=None,
            download=False,
            workers=1,
            executor="here",
            checkpoint_every_s=60.0,
        )
        session = Session(host, suite, options)
        session.train()
        records = load([out / "classic-ml"]).records
        return session.failed, {f"{r.run.pair}/{r.run.label}": r for r in records}

    return run
