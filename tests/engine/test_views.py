"""Further views of a batch: made once, answered by all, each on a stream of its own."""

from __future__ import annotations

import pytest
import torch

VIEWS = """
from dataclasses import dataclass
import torch.nn.functional as F
from kdbench import Strategy, hookimpl

SEEN = []

@dataclass(frozen=True, kw_only=True)
class Mixing(Strategy):
    '''Cross-entropy on mixtures, and the teacher's answer to a strong view.'''
    name = "mixing"
    paper = "a test"
    views = ("strong", "mixup", "cutmix")
    taps = ("pooled",)

    def loss(self, batch):
        SEEN.append(batch)
        terms = {"ce": F.cross_entropy(batch.student.logits, batch.targets)}
        for name in ("mixup", "cutmix"):
            view = batch.views[name]
            logits, other = view.students[0].logits, batch.targets[view.partner]
            own = F.cross_entropy(logits, batch.targets, reduction="none")
            mixed = F.cross_entropy(logits, other, reduction="none")
            terms[name] = (view.share * own + (1 - view.share) * mixed).mean()
        strong = batch.views["strong"]
        answers = strong.teachers[0].logits.softmax(1)
        terms["strong"] = F.cross_entropy(strong.students[0].logits, answers)
        return terms

@dataclass(frozen=True, kw_only=True)
class Writing(Mixing):
    '''Spoils a view that others see.'''
    name = "writing"

    def loss(self, batch):
        batch.views["mixup"].inputs.zero_()
        return super().loss(batch)

@hookimpl
def kdbench_strategies():
    return [Mixing, Writing]
"""


@pytest.fixture(scope="module")
def mixing(tmp_path_factory):
    """A host with the strategies above."""
    from kdbench.plugins import Host

    file = tmp_path_factory.mktemp("plugin") / "mixing.py"
    file.write_text(VIEWS)
    return Host(files=[file])


@pytest.fixture(scope="module")
def trained(mixing, run_digits, tmp_path_factory):
    changes = {"pairs": ["digits-conv"], "strategies": ["kd", "writing", "mixing"]}
    out = tmp_path_factory.mktemp("views")
    return run_digits(out, mixing, epochs=1, **changes)[1]


def test_a_strategy_with_views_trains_and_pays_for_them(trained):
    """Three views more: four passes of the student, and of the teacher."""
    kd, record = trained["digits-conv/kd/0"], trained["digits-conv/mixing/0"]
    assert record.status == "finished"
    assert set(record.curves) >= {"loss/ce", "loss/mixup", "loss/cutmix", "loss/strong"}
    assert record.cost["student_epochs"] == 4 * kd.cost["student_epochs"]
    assert record.cost["teacher_forwards"] == 4 * kd.cost["teacher_forwards"]
    assert record.cost["data_s"] > kd.cost["data_s"]


def test_who_writes_to_a_view_fails_alone(
    trained, mixing, run_digits, helpers, tmp_path
):
    assert trained["digits-conv/writing/0"].status == "failed"
    assert "shared by all learners" in trained["digits-conv/writing/0"].reason
    changes = {"pairs": ["digits-conv"], "strategies": ["mixing"]}
    _, alone = run_digits(tmp_path, mixing, epochs=1, **changes)
    for cell, record in alone.items():
        assert helpers["bits"](record) == helpers["bits"](trained[cell])


def test_views_are_of_the_batchs_own_images(trained):
    import sys

    [module] = [m for name, m in sys.modules.items() if name == "kdbench_file_mixing"]
    batch = module.SEEN[-1]
    items = len(batch.targets)
    for name, view in batch.views.items():
        assert view.inputs.shape == batch.inputs.shape
        assert sorted(view.partner.tolist()) == list(range(items))
        assert view.students[0].features["pooled"].shape[0] == items
        assert not view.teachers[0].logits.requires_grad
        assert not torch.equal(view.inputs, batch.inputs), name
    mixed = batch.views["mixup"]
    share = mixed.share.view(-1, 1, 1, 1)
    expected = share * batch.inputs + (1 - share) * batch.inputs[mixed.partner]
    torch.testing.assert_close(mixed.inputs, expected)
    assert bool((batch.views["strong"].share == 1).all())


def test_views_of_what_is_no_image_are_refused_before_training(mixing, helpers):
    from kdbench.plan import make_plan

    suite = helpers["suite"](
        mixing, datasets=["breast_cancer_10"], pairs=["tabular-mlp"]
    ).model_copy(update={"strategies": ("mixing",)})
    [reason] = {why for run, why in make_plan(suite, mixing, {}).skipped}
    assert "those are of images" in reason


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ('("strong", "mixup", "cutmix")', "'weak' is no view; there are strong"),
        ("def loss", "drives its own loop"),
    ],
)
def test_views_that_cannot_be_given_break_the_plugin(tmp_path, change, says):
    from kdbench.api import UserError
    from kdbench.plugins import Host

    new = '("weak",)' if change.startswith("(") else "def train"
    file = tmp_path / "broken.py"
    file.write_text(VIEWS.replace(change, new))
    with pytest.raises(UserError, match=says):
        Host(files=[file], found=[])
