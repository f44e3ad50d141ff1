"""Fixtures that pytest finds by itself where kdbench is installed.

pytest imports this module in every project, so nothing heavy is imported before a test
asks for a fixture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kdbench.testing import Given


@pytest.fixture(scope="session")
def check_strategy() -> Callable[..., None]:
    """`check_strategy(MyKD)` carries out all checks, or those named behind it."""
    from kdbench.testing import check_strategy

    return check_strategy


@pytest.fixture(scope="session")
def check_plugin() -> Callable[..., None]:
    """`check_plugin(my_module)` checks a plugin and everything that it offers."""
    from kdbench.testing import check_plugin

    return check_plugin


@pytest.fixture
def given() -> Iterator[Given]:
    """Builds batches by hand (`kdbench.testing.Given`); torch's generator is seeded."""
    from kdbench.testing import seeded

    with seeded() as batches:
        yield batches


@pytest.fixture
def assert_same(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Compares value and gradients of a loss with its float64 reference's."""
    from kdbench.testing import comparing

    return comparing(record_property)


@pytest.fixture
def assert_trains(given: Given) -> Callable[..., None]:
    """Checks that gradients reach student and adapters, and never the teacher."""
    from kdbench.testing import training

    return training(given)
