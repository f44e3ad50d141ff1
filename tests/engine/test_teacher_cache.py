"""Answers that are kept where inputs repeat: the same bits whenever and beside whom."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from kdbench.atomic import Unwritable
from kdbench.data.digits import DIGITS, load
from kdbench.engine import answers as answers_module
from kdbench.engine.feed import Feed
from kdbench.engine.teacher import FRESH, PASS, FrozenTeacher, TeacherStage
from kdbench.models.convnet import convnet
from kdbench.models.taps import TappedModel
from kdbench.records import Recipe

RECIPE = Recipe(epochs=2, batch_size=64, lr=0.02)
SPEC = convnet(6)
ASK = ("", 0)
BATCHES = 22  # of 1,347 images


def feed_of(recipe=RECIPE, seed=0):
    return Feed(load(None, False), DIGITS.task, recipe, seed, torch.device("cpu"))


def teacher_of(seed=0):
    torch.manual_seed(seed)
    module = DIGITS.build(SPEC)
    with torch.no_grad():  # running statistics that are not the initial ones
        module(feed_of().at(0, 0).inputs)
    return module.eval()


class Counted(FrozenTeacher):
    """Counts how many items it is asked about."""

    items = 0

    def __call__(self, inputs):
        self.items += len(inputs)
        return super().__call__(inputs)


@pytest.fixture
def stage_of(tmp_path):
    def stage_of(*taps, feed=None, teachers=1, **options):
        feed = feed or feed_of()
        some = [Counted(SPEC, teacher_of(k), taps, feed) for k in range(teachers)]
        stage = TeacherStage(some, feed, tmp_path, **options)
        stage.asked = some
        return stage

    return stage_of


def answer(stage, epoch=0, step=0, feed=None, **options):
    stage.begin((feed or feed_of()).at(epoch, step))
    return stage.answers([ASK], **options)[ASK]


def equal(one, two, *taps):
    return torch.equal(one.logits, two.logits) and all(
        torch.equal(one.features[tap], two.features[tap]) for tap in taps
    )


@pytest.mark.parametrize(
    ("changes", "repeats"),
    [
        ({}, True),
        ({"drop_last": True, "precision": "bfloat16"}, True),
        ({"crop_padding": 1}, False),
        ({"flip": True}, False),
        ({"cutout": 2}, False),
        ({"rand_augment": (1, 5)}, False),
        ({"resized_crop": True, "image_size": 8}, False),
    ],
)
def test_inputs_repeat_where_nothing_is_drawn(changes, repeats):
    feed = feed_of(RECIPE.model_copy(update=changes))
    assert feed.repeats == repeats
    first, again = feed.at(0, 0), feed.at(1, 0)
    order = [again.index.tolist().index(i) for i in first.index if i in again.index]
    known = [k for k, i in enumerate(first.index) if i in again.index]
    assert known
    assert torch.equal(first.inputs[known], again.inputs[order]) == repeats


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_kept_answers_are_the_teachers(stage_of, precision):
    feed = feed_of(RECIPE.model_copy(update={"precision": precision}))
    stage = stage_of("pooled", feed=feed)
    for step in (0, 21):  # the last batch is a small one
        kept = answer(stage, step=step, feed=feed)
        with torch.no_grad():
            plain = TappedModel(SPEC, teacher_of(), ["pooled"], precision)
            expected = plain(feed.at(0, step).inputs)
        close = {"rtol": 1e-5, "atol": 1e-5}
        if precision == "bfloat16":
            close = {"rtol": 0.02, "atol": 0.02}  # folding moves a few roundings
        assert kept.logits.dtype == torch.float32
        torch.testing.assert_close(kept.logits, expected.logits, **close)
        torch.testing.assert_close(
            kept.features["pooled"], expected.features["pooled"], **close
        )


def test_bits_do_not_depend_on_company_order_or_when_it_began(stage_of):
    alone, company = stage_of("pooled"), stage_of("pooled", "stage1", "stem.0")
    by_item = {}
    for epoch, step in ((0, 0), (0, 1), (1, 5)):
        one, two = answer(alone, epoch, step), answer(company, epoch, step)
        assert equal(one, two, "pooled")
        resumed = answer(stage_of("pooled"), epoch, step)
        assert equal(one, resumed, "pooled")
        index = feed_of().at(epoch, step).index.tolist()
        for item, logits in zip(index, one.logits, strict=True):
            assert torch.equal(by_item.setdefault(item, logits), logits)
    assert len(by_item) < 3 * 64  # some came twice
    other = feed_of(seed=1)
    for item, logits in zip(
        other.at(0, 0).index.tolist(), answer(alone, feed=other).logits, strict=True
    ):
        assert torch.equal(by_item.get(item, logits), logits)


def test_other_taps_are_the_batchs_own_and_asked_for_only_when_wanted(stage_of):
    stage = stage_of("pooled", "stage1")
    [teacher] = stage.asked
    kept = answer(stage, taps=["logits", "pooled"])
    assert list(kept.features) == ["pooled"]
    everyone = teacher.items
    assert everyone == 1347
    whole = stage.answers([ASK], ["stages"])[ASK]
    assert stage.answers([ASK])[ASK] is whole  # what is made of it once stays with it
    assert stage.answers([ASK], ["pooled"])[ASK] is kept
    assert list(whole.features) == ["stage1", "pooled"]
    assert teacher.items == everyone + 64
    assert whole.logits is kept.logits
    assert whole.features["pooled"] is kept.features["pooled"]
    fresh = FrozenTeacher(SPEC, teacher_of(), ["stage1"], feed_of())
    with torch.no_grad():
        expected = fresh(feed_of().at(0, 0).inputs)
    assert torch.equal(whole.features["stage1"], expected.features["stage1"])
    shared = {id(tensor) for tensor in stage.shared()}
    given = [whole.logits, *whole.features.values()]
    assert {id(tensor) for tensor in given} <= shared


def test_nobody_can_spoil_what_is_kept(stage_of):
    stage = stage_of("pooled")
    given = answer(stage)
    before = given.logits.clone()
    given.logits.zero_()
    given.features["pooled"].zero_()
    again = answer(stage)
    assert torch.equal(again.logits, before)
    assert again.features["pooled"].any()
    with pytest.raises(TypeError):
        again.features["pooled"] = 0


@pytest.mark.parametrize(
    ("memory", "in_memory"),
    [(2**30, 4 * 1347 * (10 + 12)), (4 * 1347 * 11, 4 * 1347 * 10), (100, 0)],
)
def test_beyond_its_memory_answers_lie_in_a_file_without_a_name(
    stage_of, tmp_path, memory, in_memory
):
    stage = stage_of("pooled", memory=memory)
    for step in (3, 21):
        expected = answer(stage_of("pooled"), step=step)
        assert equal(answer(stage, step=step), expected, "pooled")
    assert stage._kept[0].held == in_memory
    assert list(tmp_path.iterdir()) == []  # so a killed process leaves nothing


def test_several_teachers_share_the_memory(stage_of):
    stage = stage_of(teachers=2, memory=4 * 1347 * 15)
    stage.begin(feed_of().at(0, 0))
    both = stage.answers([("", 0), ("", 1)])
    assert [stage._kept[k].held for k in (0, 1)] == [4 * 1347 * 10, 0]
    assert not torch.equal(both["", 0].logits, both["", 1].logits)


def test_a_full_disk_is_told(stage_of, monkeypatch):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    monkeypatch.setattr(
        answers_module, "TemporaryFile", lambda **_: full.open("r+b", buffering=0)
    )
    with pytest.raises(Unwritable, match="the teacher's answers"):
        answer(stage_of(memory=0))


def paid(stage, who, taps):
    stage.answers([ASK], taps)
    return stage.charges(who, [ASK], taps)


def test_each_learner_pays_the_pass_once_and_other_taps_by_the_batch(stage_of):
    stage = stage_of("pooled", "stage1")
    forwards = Counter()
    for step in range(3):
        stage.begin(feed_of().at(0, step))
        for who, taps in (("kd", []), ("fitnet", ["stage1"]), ("late", ["pooled"])):
            if who == "late" and step == 0:
                continue
            charges = paid(stage, who, taps)
            forwards[who] += sum(charge.batches for charge in charges)
            parts = [charge.part for charge in charges]
            first = step == (1 if who == "late" else 0)
            assert ((PASS, 0) in parts) == first
            assert ((FRESH, 0) in parts) == (who == "fitnet")
            assert [c.shared for c in charges] == [
                c.part != (PASS, 0) or who != "late" for c in charges
            ]
            assert all(charge.time >= 0 for charge in charges)
    assert forwards == {"kd": BATCHES, "late": BATCHES, "fitnet": BATCHES + 3}
    [looked_up] = charges
    assert stage._passes[0].time > looked_up.time


def test_a_step_made_anew_charges_the_pass_to_those_who_come_then(stage_of):
    """After somebody wrote to what all share."""
    stage = stage_of()
    stage.begin(feed_of().at(0, 0))
    first = paid(stage, "one", [])
    stage.begin(feed_of().at(0, 0))
    second = paid(stage, "two", [])
    assert [c.part for c in second] == [(PASS, 0), ASK]
    assert first[0] == second[0]
    assert second[0].shared


def test_drawn_inputs_are_asked_about_in_every_batch(stage_of):
    feed = feed_of(RECIPE.model_copy(update={"flip": True}))
    stage = stage_of("pooled", feed=feed)
    for step in range(2):
        answer(stage, step=step, feed=feed, taps=["pooled"])
        [charge] = stage.charges("kd", [ASK], ["pooled"])
        assert (charge.part, charge.batches, charge.shared) == (ASK, 1, True)
    assert stage.asked[0].items == 2 * 64


def test_other_views_are_asked_about_in_every_batch(stage_of):
    stage, feed = stage_of(), feed_of()
    step = feed.at(0, 0)
    feed.add_views(step, ["mixup"])
    stage.begin(step)
    asks = [ASK, ("mixup", 0)]
    found = stage.answers(asks, [])
    assert stage.asked[0].items == 1347 + 64
    assert not torch.equal(found[asks[0]].logits, found[asks[1]].logits)
    parts = [charge.part for charge in stage.charges("kd", asks, [])]
    assert parts == [(PASS, 0), *asks]
