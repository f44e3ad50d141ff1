"""What tests of packed files share: the files, and a state of several parts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kdbench.carrying.packing import write

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))

from packed import LIMIT, SIZES, laid_out


@pytest.fixture
def files(tmp_path):
    return laid_out(tmp_path / "here", SIZES)


@pytest.fixture
def state(tmp_path, files):
    """A state of several parts, and its index."""
    folder = tmp_path / "state"
    index, _ = write(folder, "digits", None, lambda: files, LIMIT)
    return folder, index
