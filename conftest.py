"""What all tests share, the plugins' too: own caches, and seeded generators."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch


def pytest_collection_finish() -> None:
    """A training ends with a collection: not of all that was imported and collected."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KDBENCH_CACHE", str(tmp_path_factory.mktemp("session_cache")))
        yield


@pytest.fixture(autouse=True)
def _own_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Teachers and decoded images of one test are no other's."""
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """What a test draws from a global generator depends on no test before it."""
    seed = 31_415  # not one that a mistaken plugin sets, which would go unnoticed
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the one that others may draw from
    torch.manual_seed(seed)
