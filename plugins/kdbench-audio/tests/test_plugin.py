"""The plugin in the host: what it offers, and a whole suite on small recordings."""

from __future__ import annotations

import pickle
import re
from importlib.metadata import version
from pathlib import Path

import kdbench_audio
import pytest

from kdbench.config import Suite, changed, read_suite
from kdbench.plugins import Host
from kdbench.session import Options, Session
from kdbench.store import load

MODELS = {model.name for model in kdbench_audio.kdbench_models()}


@pytest.fixture(scope="module")
def host() -> Host:
    """The host with this plugin and those whose strategies the suite names."""
    return Host()


def test_pairs_name_known_models():
    pairs = kdbench_audio.kdbench_pairs()
    assert {m for p in pairs for m in (*p.teachers, *p.students)} <= MODELS
    assert all(pair.name.startswith("fsdd-") for pair in pairs)


def test_records_travel_to_worker_processes():
    for dataset in kdbench_audio.kdbench_datasets():
        again = pickle.loads(pickle.dumps(dataset))  # noqa: S301 (our own)
        assert again.name == dataset.name
        assert again.load.keywords == dataset.load.keywords


def packaged_suite() -> Suite:
    [file] = kdbench_audio.kdbench_suites()
    return read_suite(file.path)


def test_the_packaged_suite_names_what_there_is(host):
    suite = packaged_suite()
    assert suite.name == "fsdd"
    assert suite.seeds >= 3
    assert not suite.recipe.flip
    datasets = {dataset.name for dataset in kdbench_audio.kdbench_datasets()}
    assert set(suite.datasets) <= datasets
    assert set(suite.pairs) <= {pair.name for pair in kdbench_audio.kdbench_pairs()}
    assert {"scratch", "kd"} <= set(suite.strategies)


def test_the_readme_names_everything_offered():
    folder = Path(__file__).resolve().parents[1]
    readme = (folder / "README.md").read_text(encoding="utf-8")
    pairs = {pair.name for pair in kdbench_audio.kdbench_pairs()}
    for name in MODELS | pairs | {"fsdd", "fsdd-without-"}:
        assert re.search(rf"`{re.escape(name)}", readme), name
    assert version("kdbench-audio")


def test_a_suite_runs_from_recordings_to_records(host, wavs, tmp_path):
    suite = changed(
        packaged_suite(),
        {
            "name": "tones",
            "datasets": ("fsdd", "fsdd-without-theo"),
            "pairs": ("fsdd-res8-ds8",),
            "strategies": ("scratch", "kd", "fitnet", "at"),
            "seeds": 1,
            "epochs": 2,
            "batch_size": 20,
        },
    )
    options = Options(
        out=tmp_path,
        device="cpu",
        data_dir=wavs,
        download=False,
        workers=1,
        executor="here",
        checkpoint_every_s=60.0,
    )
    session = Session(host, suite, options)
    session.train()
    assert [record.reason for record in session.failed] == []
    records = load([tmp_path / "tones"]).records
    cells = {(r.run.dataset, r.run.label) for r in records}
    labels = ("teacher", "scratch", "kd", "fitnet", "at")
    assert cells == {(d, label) for d in suite.datasets for label in labels}
    assert all(r.status == "finished" and r.test_items == 40 for r in records)
