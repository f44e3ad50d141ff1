"""What tests of `kdbench export` share: trained students, and a way to export them."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from kdbench.exporting import export
from kdbench.exporting.runs import find
from kdbench.session import Session

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def train(host, helpers, tmp_path_factory):
    """Train these cells for two epochs: the folder of their results."""

    def run(**changes):
        out = tmp_path_factory.mktemp("runs")
        suite = helpers["suite"](host, **changes)
        Session(host, suite, helpers["options"](out)).train()
        return out / "digits"

    return run


@pytest.fixture(scope="session")
def digits(train):
    return train(pairs=["digits-mlp"], strategies=["kd", "simkd"])


@pytest.fixture
def copied(digits, tmp_path):
    """The same results, to be spoiled."""
    return shutil.copytree(digits, tmp_path / "digits")


@pytest.fixture
def write(host, tmp_path):
    """Export a run of a folder: what stands in student.json, and where."""

    def run(folder, name, form, **more):
        out = tmp_path / "export"
        export(find(folder, name), host, folder, out, form, **more)
        return json.loads((out / "student.json").read_text()), out

    return run
