"""Further views of a batch: made once, answered by all, each on a stream of its own."""

from __future__ import annotations

import sys

import pytest
import torch

from kdbench.api import UserError
from kdbench.plugins import Host

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
    file = tmp_path_factory.mktemp("plugin") / "mixing.py"
    file.write_text(VIEWS)
    return Host(files=[file])


@pytest.fixture(scope="module")
def trained(mixing, run_digits, tmp_path_factory):
    changes = {"pairs": ["digits-conv"], "strategies": ["kd", "writing", "mixing"]}
    out = tmp_path_factory.mktemp("views")
    return run_digits(out, mixing, epochs=1, **changes)[1]


def test_a_strategy_with_views_trains_and_pays_for_them(trained):
    """Three views more: four passes of the student, and of the teacher.

    The digits as they are repeat: the teacher is asked about them once, and for all.
    """
    kd, record = trained["digits-conv/kd/0"], trained["digits-conv/mixing/0"]
    assert record.status == "finished"
    assert set(record.curves) >= {"loss/ce", "loss/mixup", "loss/cutmix", "loss/strong"}
    assert record.cost["student_epochs"] == 4 * kd.cost["student_epochs"]
    assert kd.cost["teacher_forwards"] == 22  # batches of the whole training set
    assert record.cost["teacher_forwards"] == 22 + 3 * 21  # the last one is left out
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


def test_a_view_that_does_not_exist_breaks_the_plugin(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text(VIEWS.replace('("strong", "mixup", "cutmix")', '("weak",)'))
    with pytest.raises(UserError, match="'weak' is no view; there are strong"):
        Host(files=[file], found=[])


OWN = """
    def train(self, context):
        student = context.students[0]
        optimiser = context.optimiser(student.parameters())
        for _ in context.epochs():
            for batch in context.batches():
                SEEN.append(batch)
                logits = student(batch.views["cutmix"].inputs)
                loss = F.cross_entropy(logits, batch.targets)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                context.log("ce", loss.detach())
        return student

"""


def test_who_drives_its_own_loop_is_given_the_same_views_without_answers(
    trained, run_digits, tmp_path
):
    file = tmp_path / "looping.py"
    text = VIEWS.replace('name = "mixing"', 'name = "looping"' + OWN, 1)
    file.write_text(text.replace("[Mixing, Writing]", "[Mixing]"))
    changes = {"pairs": ["digits-conv"], "strategies": ["looping"]}
    _, records = run_digits(tmp_path, Host(files=[file]), epochs=1, **changes)
    record, kd = records["digits-conv/looping/0"], trained["digits-conv/kd/0"]
    assert record.status == "finished"
    assert record.cost["teacher_forwards"] == 0
    assert record.cost["data_s"] > kd.cost["data_s"]
    own, shared = (sys.modules[f"kdbench_file_{n}"] for n in ("looping", "mixing"))
    theirs = next(batch for batch in shared.SEEN if batch.epoch == 0)
    assert set(own.SEEN[0].views) == {"strong", "mixup", "cutmix"}
    for name, view in own.SEEN[0].views.items():
        assert (view.students, view.teachers) == ((), ())
        assert torch.equal(view.partner, theirs.views[name].partner)
        assert torch.equal(view.share, theirs.views[name].share)
        if name == "cutmix":  # the others' were spoiled by `writing`
            assert torch.equal(view.inputs, theirs.views[name].inputs)
