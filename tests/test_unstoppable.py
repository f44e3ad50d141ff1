"""kill -9 at any moment, the same command again: the same records, bit for bit."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import pytest

RUN = ["run", "--seeds", "1", "--epochs", "12", "--checkpoint-every", "0"]
RUN += ["-p", "digits-conv", "-s", "kd,fitnet,dml,split_transfer"]


def start(out, workers=2):
    return subprocess.Popen(
        [sys.executable, "-m", "kdbench.cli", *RUN, "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def killed_and_resumed(out, kills, seed):
    """Start, kill at a random moment, and again; the last one runs to its end."""
    moments = random.Random(seed)  # noqa: S311 - no secret
    landed = 0
    for _ in range(kills):
        process = start(out)
        try:
            process.wait(timeout=moments.uniform(2.0, 9.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            landed += 1
    process = start(out)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error.decode()
    return landed


@pytest.fixture(scope="module")
def undisturbed(run_digits, tmp_path_factory):
    _, records = run_digits(
        tmp_path_factory.mktemp("undisturbed"),
        epochs=12,
        pairs=["digits-conv"],
        strategies=["kd", "fitnet", "dml", "split_transfer"],
    )
    return records


def check(undisturbed, helpers, out, kills, seed):
    landed = killed_and_resumed(out, kills, seed)
    records = helpers["by_cell"](out / "digits")
    assert records.keys() == undisturbed.keys()
    for cell, record in records.items():
        assert helpers["bits"](record) == helpers["bits"](undisturbed[cell])
    assert list((out / "digits").glob("checkpoints/*")) == []
    return landed


def test_two_kills(undisturbed, helpers, tmp_path):
    assert check(undisturbed, helpers, tmp_path, kills=2, seed=1) > 0


@pytest.mark.slow
def test_many_kills(undisturbed, helpers, tmp_path):
    landed = sum(
        check(undisturbed, helpers, tmp_path / str(seed), kills=4, seed=seed)
        for seed in range(5)
    )
    assert landed >= 8


def test_a_killed_parent_leaves_no_workers(tmp_path):
    process = start(tmp_path)
    time.sleep(6)  # workers are up
    process.kill()
    process.wait()
    time.sleep(2)
    listed = subprocess.run(
        ["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True
    )
    mine = [x for x in listed.stdout.splitlines() if str(tmp_path) in x]
    assert mine == []
