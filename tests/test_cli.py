"""The command line as a user meets it: exit codes, messages, nothing lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from kdbench.cli import main

KDBENCH = [sys.executable, "-m", "kdbench.cli"]
QUICK = [
    "--no-speed",
    "--no-report",
    "--seeds",
    "1",
    "--epochs",
    "2",
    "-p",
    "digits-mlp",
    "-s",
    "scratch",
]


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def kdbench(monkeypatch, capsys, tmp_path):
    """The command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KDBENCH_DATA", raising=False)

    def run(*arguments):
        if arguments[0] == "run" and "--executor" not in arguments:
            arguments = (*arguments, "--executor", "here")
        monkeypatch.setattr(sys, "argv", ["kdbench", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        code = end.value.code
        return Done(code if isinstance(code, int) else 0, printed.out, printed.err)

    return run


def spawned(*arguments, cwd):
    """The command line in a process of its own, with its workers."""
    return subprocess.run(
        [*KDBENCH, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


SUITE = """
datasets = ["digits"]
pairs = ["digits-mlp"]
strategies = ["kd"]
seeds = 1
[recipe]
epochs = 2
"""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "digit"], "did you mean 'digits'"),
        (["run", "-s", "kdd"], "unknown strategy 'kdd'"),
        (["run", "-s", "kd[temprature=2]"], "did you mean 'temperature'"),
        (["run", "-s", "kd[temperature=0]"], "temperature"),
        (["run", "-s", "kd[temperature"], "is not understood"),
        (["run", "-p", "digits-mpl"], "did you mean 'digits-mlp'"),
        (["run", "-d", "digit"], "did you mean 'digits'"),
        (["run", "--seeds", "0"], "seeds = 0"),
        (["run", "--epochs", "0"], "epochs = 0"),
        (["run", "--device", "tpu"], "this machine has: cpu"),
        (["run", "mnist"], "--data-dir"),
        (["run", "mnist", "--data-dir", "."], "expected torchvision's layout"),
        (["run", "--data-dir", "nowhere"], "nowhere does not exist"),
        (["run", "--plugin", "bad.py"], "bad.py cannot be used: ModuleNotFoundError"),
        (["run", "--plugin", "none.py"], "no such file"),
        (["run", "--executor", "ray"], "unknown executor 'ray'"),
        (["run", "torn.toml"], "line 4"),
        (["run", "none.toml"], "cannot be read"),
        (["run", "wrong.toml"], "did you mean 'epochs'"),
        (["run", "--out", "file"], "cannot write to"),
        (["run", "--nonsense"], "--nonsense"),
        (["run", "--time-limit", "soon"], "9m (minutes)"),
        (["run", "--time-limit", "0"], "a time above 0"),
        (["run", "--threads", "0"], "--threads"),
        (["report", "nowhere"], "nowhere"),
        (["list", "strategy"], "did you mean 'strategies'"),
        (["show", "kdd"], "did you mean"),
        (["show", "torchvision:resnet19"], "did you mean 'resnet18'"),
        (["list", "models", "-d", "minst"], "did you mean 'mnist'"),
    ],
)
def test_bad_input_is_one_message_exit_2_and_nothing_written(
    tmp_path, kdbench, arguments, says
):
    write(tmp_path / "bad.py", "import nothing_of_this_name")
    write(tmp_path / "torn.toml", SUITE.replace('["digits-mlp"]', '["digits-mlp"'))
    write(tmp_path / "wrong.toml", SUITE.replace("epochs", "epoch"))
    write(tmp_path / "file", "")
    before = sorted(tmp_path.iterdir())
    done = kdbench(*arguments)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.iterdir()) == before


FAILS_LATE = """
from dataclasses import dataclass
import torch.nn.functional as F
from kdbench import Strategy, hookimpl

@dataclass(frozen=True, kw_only=True)
class Late(Strategy):
    '''Works for one epoch.'''
    name = "late"

    def loss(self, batch):
        if batch.epoch >= 1:
            HOW
        return {"ce": F.cross_entropy(batch.student.logits, batch.targets)}

@hookimpl
def kdbench_strategies():
    return [Late]
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("raise ValueError('not today')", "ValueError: not today (late.py:13)"),
        ("import os; os._exit(7)", "its process died (exit code 7)"),
    ],
)
def test_one_failing_run_of_many(tmp_path, how, says):
    """Exit 1; the others finished; table, record and page give the reason."""
    write(tmp_path / "late.py", FAILS_LATE.replace("HOW", how))
    arguments = [*QUICK[:-1], "late,scratch,kd", "--plugin", "late.py", "--report"]
    done = spawned("run", *arguments, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "1 failed" in done.stdout
    records = [
        json.loads(p.read_text())
        for p in (tmp_path / "results" / "digits").glob("*.json")
        if not p.name.startswith(("speed", "strategy"))
    ]
    status = {r["run"]["label"]: r["status"] for r in records}
    assert status == {
        "teacher": "finished",
        "scratch": "finished",
        "kd": "finished",
        "late": "failed",
    }
    [reason] = [r["reason"] for r in records if r["status"] == "failed"]
    assert says in reason
    page = tmp_path / "results" / "digits" / "report" / "report.html"
    assert says.partition("(")[0].strip() in page.read_text()


def test_a_run_is_not_done_twice(tmp_path, kdbench):
    first = kdbench("run", *QUICK)
    assert first.returncode == 0, first.stderr
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")}
    assert "report: none; 'kdbench report results/digits' writes it" in first.stdout
    assert not (tmp_path / "results" / "digits" / "report").exists()
    second = kdbench("run", *QUICK)
    assert "0 runs to do" in second.stdout
    assert {p: p.stat().st_mtime_ns for p in times} == times


def test_a_damaged_teacher_is_trained_again(tmp_path, kdbench):
    assert kdbench("run", *QUICK).returncode == 0
    folder = tmp_path / "results" / "digits"
    [teacher] = [
        p for p in folder.glob("*.json") if '"strategy": "teacher"' in p.read_text()
    ]
    weights = folder / "weights" / f"{teacher.stem}.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-40])
    done = kdbench("run", *QUICK[:-1], "scratch,dkd")
    assert done.returncode == 0, done.stderr
    assert weights.read_bytes() == before


def test_a_time_limit_ends_with_75_and_the_same_command_resumes(tmp_path, kdbench):
    longer = [*QUICK, "--epochs", "80"]
    done = kdbench("run", *longer, "--time-limit", "1s")
    assert done.returncode == 75, done.stdout
    assert "stopped at the time limit" in done.stdout
    again = kdbench("run", *longer)
    assert again.returncode == 0, again.stderr


def test_threads_are_chosen_and_on_record(tmp_path, kdbench):
    assert kdbench("run", *QUICK, "--threads", "2").returncode == 0
    threads = {
        json.loads(path.read_text())["environment"]["threads"]
        for path in (tmp_path / "results" / "digits").glob("*.json")
        if not path.name.startswith(("speed", "strategy"))
    }
    assert threads == {2}


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_an_interruption_is_short_and_resumes(tmp_path, how):
    text = FAILS_LATE.replace("HOW", "import time; time.sleep(0.03)")
    write(tmp_path / "late.py", text.replace("Works for", "Slow after"))
    arguments = ["run", *QUICK[:-1], "late", "--plugin", "late.py", "--epochs", "6"]
    first = subprocess.Popen(
        [*KDBENCH, *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_minds_interruptions,
    )
    _wait_for(tmp_path / "results" / "digits" / "weights")  # the teacher is done
    time.sleep(1)
    first.send_signal(how)
    out, err = first.communicate(timeout=60)
    assert first.returncode == 130
    assert "the same command resumes" in out
    assert "Traceback" not in out + err
    again = spawned(*arguments, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "1 done" in again.stdout  # the teacher was kept


def _minds_interruptions() -> None:
    """A shell's background job ignores SIGINT, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _wait_for(path: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["list"], "logit_standardization"),
        (["list", "models"], "torchvision:...: a classification model"),
        (["list", "pairs"], "resnet32x4-resnet8x4 7.434 -> 1.234 1083 -> 177.1"),
        (["list", "datasets"], "1,797"),
        (["list", "suites"], "mnist"),
        (["list", "measures"], "latency_ms"),
        (["list", "renderers"], "html"),
        (["show", "kd"], "temperature"),
        (["show", "kd"], "1503.02531"),
        (["show", "digits-mlp"], "mlp_bn_256_128"),
        (["show", "resnet8x4"], "parameters for cifar100: 1,233,540"),
        (["show", "torchvision:resnet18"], "resnet18 of torchvision"),
        (["show", "mnist"], "epochs"),
        (["plan", "digits"], "117 runs to do, 0 done, 3 skipped"),
        (["plan", "digits", "-s", "kd/int8_weights"], "420 student epochs to train"),
        (["plugins"], "kdbench-soft-targets"),
        (["info"], "embedded"),
        (["--version"], "kdbench 0."),
    ],
)
def test_what_the_listing_commands_show(tmp_path, kdbench, arguments, says):
    done = kdbench(*arguments)
    assert done.returncode == 0, done.stderr
    assert says in " ".join(done.stdout.split())
    assert list(tmp_path.iterdir()) == []


def test_json_output_is_json(kdbench):
    for arguments in (["list", "models"], ["plugins"], ["info"]):
        done = kdbench(*arguments, "--json")
        assert json.loads(done.stdout)


def test_a_report_needs_only_the_records(tmp_path, kdbench):
    assert kdbench("run", *QUICK).returncode == 0
    folder = tmp_path / "results" / "digits"
    code = (
        "import sys; sys.modules['torch'] = None; from kdbench.cli import main; main()"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            "report",
            str(folder),
            "--to",
            str(tmp_path / "r"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "r" / "report.html").read_text()
    assert "The student alone, on the labels" in page  # its card is beside the records
    assert (tmp_path / "r" / "report.pdf").is_file()
