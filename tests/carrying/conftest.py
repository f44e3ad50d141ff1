"""What tests of carried runs share: bare machines, and states of every stage."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

# modules beside the tests are found by name, as in tests/bench
sys.path.insert(0, str(Path(__file__).parent))

from carried import LIMIT, After, Machines


@pytest.fixture
def machines(host, helpers, tmp_path, monkeypatch):
    monkeypatch.setattr("kdbench.carrying.LIMIT", LIMIT)
    monkeypatch.setattr("kdbench.session.print_tables", lambda *_: None)  # slow
    return Machines(host, helpers, tmp_path, monkeypatch)


@pytest.fixture(scope="session")
def exported(host, helpers, tmp_path_factory):
    """States by their stage: the teacher under way, students under way, all done."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdbench.carrying.LIMIT", LIMIT)
        machines = Machines(host, helpers, folder, patch)
        out = machines.bare()
        for stage, times in (("early", 10), ("later", 50), ("done", 10_000)):
            state = folder / stage
            session = machines.session(out, After(times), export_state=state)
            assert session.run() == (0 if stage == "done" else 75)
    return folder


@pytest.fixture
def state(exported, tmp_path):
    """A copy of one of these states."""

    def copy(stage):
        shutil.copytree(exported / stage, tmp_path / "state", dirs_exist_ok=True)
        return tmp_path / "state"

    return copy
