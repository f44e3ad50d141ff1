"""From a plan to jobs: how much work each is, and what the recipe's images must be."""

from __future__ import annotations

import pytest

from kdbench import perform
from kdbench.api import UserError
from kdbench.config import changed
from kdbench.data import known
from kdbench.execute import check_data, make_jobs
from kdbench.plan import make_plan


def test_a_shared_teacher_is_work_once_and_training_three_passes(
    host, helpers, tmp_path
):
    strategies = ["scratch", "kd", "dist"]
    suite = helpers["suite"](host, pairs=["digits-conv"], strategies=strategies)
    plan = make_plan(suite, host, {})
    jobs = make_jobs(plan, host, {"digits": 1}, tmp_path, None, "cuda", 60.0)
    teacher, group = sorted(jobs, key=lambda job: len(job.group.runs))
    step = 3e5
    assert teacher.work == pytest.approx(step + 3 * 904_192, rel=1e-3)
    assert 3 * group.work == pytest.approx(3 * (step + 3 * 34_700) + 904_192, rel=1e-2)


def test_who_is_left_when_memory_runs_out_in_company_goes_on_alone(
    host, helpers, tmp_path, monkeypatch
):
    """It was not alone, so nothing says that it does not fit."""
    changes = {"pairs": ["digits-conv"], "strategies": ["scratch", "kd", "dist"]}
    plan = make_plan(helpers["suite"](host, **changes), host, {})
    jobs = make_jobs(plan, host, {"digits": 1}, tmp_path, None, "cpu", 60.0)
    [group] = [job for job in jobs if len(job.group.runs) > 1]
    last = group.group.runs[-1]
    attempts, notes = [], []

    def attempt(work, *_):
        attempts.append(work.job.group.runs)
        return ((last,), "no room") if len(attempts) == 1 else ((), "")

    monkeypatch.setattr(perform, "attempt", attempt)
    perform.perform(group, host, notes.append, lambda: False)
    assert attempts == [group.group.runs, (last,)]
    assert [kind for kind, _ in notes] == ["note"]  # and no record of a failure


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ({"resized_crop": True, "image_size": 4}, "models are built for (1, 8, 8)"),
        ({"crop_padding": 2, "resized_crop": True}, "crop"),
        ({"image_size": 8}, "resized_crop = true, which is not set"),
        ({"crop_padding": 8}, "leaves nothing of images of 8 x 8"),
    ],
)
def test_images_of_another_size_than_the_models_are_refused(
    host, helpers, recipe, says
):
    suite = helpers["suite"](host, **recipe)
    with pytest.raises(UserError) as caught:
        check_data(suite, host, None, False)
    assert says in str(caught.value)


def test_imagenet_needs_the_crop_that_its_models_are_built_for(host, helpers):
    [imagenet] = [d for d in known.IMAGE_SETS if d.name == "imagenet"]
    from kdbench.execute import _check_size

    suite = helpers["suite"](host)
    with pytest.raises(ValueError, match="image_size = 224"):
        _check_size(imagenet, suite.recipe)
    fits = changed(suite, {"resized_crop": True, "image_size": 224})
    _check_size(imagenet, fits.recipe)
