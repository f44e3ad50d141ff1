"""Third-party plugins in one run: what they break is theirs alone."""

from __future__ import annotations

import pytest

from kdbench.api import UserError
from kdbench.plugins import Host
from kdbench.session import Session

PLUGIN = """
from dataclasses import dataclass
from functools import partial
import torch, torch.nn.functional as F
from torch import nn
from kdbench import *

def load(data_dir, download, break_it=None):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(256, 4, generator=g)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    test = x[:64].clone(), y[:64].clone()
    std = (1.0,) * 4
    if break_it == "range": y[7] = 3
    if break_it == "length": y = y[:-1]
    if break_it == "float": y = y.float()
    if break_it == "empty": test = x[:0], y[:0]
    if break_it == "std": std = (0.0,) * 4
    if break_it == "nan": x[3, 3] = float("nan")
    if break_it == "shape": x = x[:, :3]
    if break_it == "raise": raise KeyError("no such part")
    return Data(train=Split(inputs=x, targets=y),
                test=Split(inputs=test[0], targets=test[1]), mean=(0.0,) * 4, std=std)

class Net(nn.Module):
    def __init__(self, shape, outputs, width, kind):
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(shape[0], width), nn.ReLU())
        self.head = nn.Linear(width, outputs)
        self.kind = kind
        if kind == "tied": self.again = self.head
    def forward(self, x):
        if self.kind == "eval" and not self.training and not x.is_meta:
            raise RuntimeError("eval only bug")
        return self.head(self.hidden(x))

def model(name, width, kind="", tap="pooled"):
    return Model(name=name, summary=name, build=partial(Net, width=width, kind=kind),
                 taps={tap: "head:input"}, classifier="head")

@dataclass(frozen=True, kw_only=True)
class Memory(Strategy):
    '''A memory bank of one moving mean.'''
    name = "memory"
    taps = ("pooled",)
    def adapters(self, student, teacher):
        bank = nn.Linear(student.shapes["pooled"][0], teacher.shapes["pooled"][0])
        bank.register_buffer("mean", torch.zeros(teacher.shapes["pooled"]))
        return bank
    def loss(self, batch):
        bank = batch.adapters
        with torch.no_grad():
            bank.mean.lerp_(batch.teacher.features["pooled"].mean(0), 0.1)
        near = bank(batch.student.features["pooled"]) - bank.mean
        ce = F.cross_entropy(batch.student.logits, batch.targets)
        return {"ce": ce, "near": 0.1 * near.pow(2).mean()}

@dataclass(frozen=True, kw_only=True)
class Own(Strategy):
    '''Drives its own loop for one epoch.'''
    name = "own"
    meddle: bool = False  # true or false; whether it trains the teacher
    def train(self, context):
        student, teacher = context.students[0], context.teachers[0]
        optimiser = context.optimiser(student.parameters())
        for epoch in context.epochs():
            if epoch == 1: break
            for batch in context.batches():
                with torch.no_grad(): target = teacher(batch.inputs)
                loss = F.mse_loss(student(batch.inputs), target)
                optimiser.zero_grad(); loss.backward(); optimiser.step()
                context.log("mse", loss)
            if self.meddle:
                with torch.no_grad(): teacher.head.bias += 1
        return student

@dataclass(frozen=True, kw_only=True)
class Unsure(Strategy):
    '''Cannot say whether it runs.'''
    name = "unsure"
    def supports(self, student, teacher): raise KeyError("shape")
    def loss(self, batch): return {}

@hookimpl
def kdbench_strategies(): return [Memory, Own, Unsure]

@hookimpl
def kdbench_datasets():
    kinds = ["", "range", "length", "float", "empty", "std", "nan", "shape", "raise"]
    return [Dataset(name="vec" + k, summary="", source="", task=Task(outputs=3),
                    input_shape=(4,), load=partial(load, break_it=k)) for k in kinds]

@hookimpl
def kdbench_models():
    return [model("big", 32), model("other", 24, tap="deep"), model("small", 4),
            model("blind", 4, "eval"), model("tied", 4, "tied")]

@hookimpl
def kdbench_pairs():
    pair = lambda n, t, s: Pair(name=n, teachers=t, students=s)
    return [
        pair("plain", ("big",), ("small",)), pair("same", ("big",), ("small",)),
        pair("two", ("big", "other"), ("small",)),
        pair("evals", ("big",), ("blind",)), pair("ties", ("big",), ("tied",)),
    ]

@hookimpl
def kdbench_renderers():
    def render(results, folder): raise OSError("no printer")
    return [Renderer(name="paper", summary="", render=render)]
"""


@pytest.fixture(scope="module")
def company(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "company.py"
    path.write_text(PLUGIN)
    return Host(files=[path])


@pytest.fixture
def run(company, run_digits, tmp_path):
    def run(*pairs, strategies, dataset="vec", folder="out"):
        return run_digits(
            tmp_path / folder,
            plugins=company,
            datasets=[dataset],
            pairs=list(pairs),
            strategies=strategies,
        )

    return run


def test_vectors_memory_and_own_loops_work(run):
    failed, records = run("plain", strategies=["memory", "own", "ensemble_kd"])
    assert failed == 0
    assert {r.status for r in records.values()} == {"finished"}


def test_an_own_loop_is_charged_and_ends_where_it_ends(run):
    _, records = run("plain", strategies=["own"])
    own = records["plain/own/0"]
    assert own.cost["student_epochs"] == 1
    assert own.cost["teacher_forwards"] == 4  # 256 items in batches of 64
    assert own.cost["teacher_s"] > 0
    assert [len(curve) for curve in own.curves.values()] == [1, 1, 1]


def test_an_own_loop_may_not_train_the_teacher(run):
    _, records = run("plain", strategies=["own[meddle=true]"])
    assert "weights or buffers changed" in records["plain/own[meddle=true]/0"].reason
    assert records["plain/kd/0"].status == "finished"


def test_each_pair_learns_from_its_own_teachers(run, helpers):
    _, alone = run("two", strategies=["ensemble_kd"], folder="a")
    _, both = run("plain", "two", strategies=["ensemble_kd"], folder="b")
    cell = "two/ensemble_kd/0"
    assert helpers["bits"](alone[cell]) == helpers["bits"](both[cell])
    assert alone[cell].weights_sha256 != both["plain/ensemble_kd/0"].weights_sha256


def test_a_tap_that_only_another_teacher_lacks_is_no_obstacle(run):
    failed, records = run("two", strategies=["rkd", "ensemble_kd"])
    assert failed == 0
    assert records["two/rkd/0"].status == "finished"


@pytest.mark.parametrize("pair", ["evals", "ties"])
def test_a_student_that_fails_after_training_fails_alone(run, helpers, pair):
    _, alone = run("plain", strategies=["kd"], folder="a")
    failed, records = run(
        pair, "plain", strategies=["kd"], folder="b"
    )  # it comes first
    assert failed == 2  # scratch and kd of that pair, each with a record
    for label in ("scratch", "kd"):
        assert records[f"{pair}/{label}/0"].reason
        cell = f"plain/{label}/0"
        assert helpers["bits"](records[cell]) == helpers["bits"](alone[cell])


def test_two_names_for_one_pair_stand_side_by_side(run):
    _, records = run("plain", "same", strategies=["kd"])
    assert {"plain/kd/0", "same/kd/0"} <= set(records)


def test_a_strategy_that_cannot_say_is_skipped(run):
    _, records = run("plain", strategies=["unsure"])
    assert "supports() raised KeyError" in records["plain/unsure/0"].reason


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        ("vecrange", "label 3 in row 7 is not in 0..2 (1 such rows)"),
        ("veclength", "256 inputs and 255 targets"),
        ("vecfloat", "int64"),
        ("vecempty", "test: 0 inputs"),
        ("vecstd", "do not normalise"),
        ("vecnan", "NaN"),
        ("vecshape", "(3,) and not (4,) as declared"),
        ("vecraise", "could not be loaded: KeyError"),
    ],
)
def test_a_broken_dataset_starts_nothing(run, tmp_path, dataset, says):
    with pytest.raises(UserError) as caught:
        run("plain", strategies=["kd"], dataset=dataset)
    assert says in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_failed_teacher_is_the_reason_of_its_students(run):
    from kdbench.engine import learner

    real = learner.predict

    def fails(model, feed):
        if sum(p.numel() for p in model.parameters()) > 200:
            raise RuntimeError("melted")
        return real(model, feed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdbench.engine.learner.predict", fails)
        failed, records = run("plain", strategies=["kd"])
    assert failed == 3
    assert "its teacher big #0 failed: RuntimeError: melted" in (
        records["plain/kd/0"].reason or ""
    )


def test_a_renderer_that_fails_costs_only_its_format(
    company, helpers, tmp_path, capsys
):
    suite = helpers["suite"](
        company, datasets=["vec"], pairs=["plain"], strategies=["kd"]
    )
    code = Session(company, suite, helpers["options"](tmp_path, report=True)).run()
    printed = capsys.readouterr().out
    assert code == 1
    assert "Accuracy" in printed
    assert "no printer" in printed
    assert (tmp_path / "digits" / "report" / "report.html").is_file()


def test_a_checkpoint_that_does_not_fit_starts_again(run, helpers, tmp_path):
    from kdbench.engine import checkpoint

    _, first = run("plain", strategies=["kd"], folder="a")
    folder = tmp_path / "b" / "digits" / "checkpoints"
    for record in first.values():
        checkpoint.save(folder, record.id, {"position": [0, 1], "students": {}})
    failed, second = run("plain", strategies=["kd"], folder="b")
    assert failed == 0
    for cell, record in second.items():
        assert helpers["bits"](record) == helpers["bits"](first[cell])
