"""The grid: ids, groups, what is done, what is skipped."""

from __future__ import annotations

from collections import Counter

import pytest

from kdbench.api import UserError
from kdbench.models.taps import probe
from kdbench.plan import make_plan
from kdbench.plugins import Host


@pytest.fixture
def plan_of(host, helpers):
    def plan(finished=None, **changes):
        return make_plan(helpers["suite"](host, **changes), host, finished or {})

    return plan


def runs_of(plan):
    return [run for group in plan.todo for run in group.runs]


def test_an_id_is_a_function_of_the_run_alone(plan_of):
    many = {r.id for r in runs_of(plan_of(seeds=3))}
    alone = {r.id for r in runs_of(plan_of(strategies=["kd"], pairs=["digits-mlp"]))}
    assert alone <= many


@pytest.mark.parametrize(
    "change", [{"epochs": 3}, {"lr": 0.5}, {"strategies": ["kd[temperature=2]"]}]
)
def test_what_changes_results_changes_the_id(plan_of, change):
    before = {r.id for r in runs_of(plan_of(strategies=["kd"])) if r.strategy == "kd"}
    after = {
        r.id
        for r in runs_of(plan_of(**{"strategies": ["kd"], **change}))
        if r.strategy == "kd"
    }
    assert not before & after


def test_groups_share_data_teacher_and_seed(plan_of):
    plan = plan_of(seeds=2)
    together = [g for g in plan.todo if g.teachers and not g.solo]
    lockstep = [g for g in together if not g.sources]
    assert len(lockstep) == 4  # two pairs, two seeds
    assert len(together) == 8  # and what is made of their students
    for group in together:
        assert len({(r.dataset, r.seed, r.teacher_runs[0]) for r in group.runs}) == 1
    assert {g.runs[0].strategy for g in plan.todo if g.solo} == {"split_transfer"}


def test_teachers_come_first_and_one_serves_all_seeds(plan_of):
    plan = plan_of(seeds=3)
    kinds = [bool(group.teachers) for group in plan.todo]
    assert kinds == sorted(kinds)
    teachers = [r for r in runs_of(plan) if r.is_teacher]
    assert len(teachers) == 6  # two pairs; ensemble_kd wants three of each
    kd = [r for r in runs_of(plan) if r.label == "kd" and r.pair == "digits-mlp"]
    assert len({r.teacher_runs for r in kd}) == 1


def test_scratch_and_kd_are_always_there(plan_of):
    plan = plan_of(strategies=["at"])
    assert {r.label for r in runs_of(plan)} >= {"scratch", "kd", "at", "teacher"}
    assert len(plan.notes) == 2


def test_what_cannot_run_is_skipped_with_a_sentence(plan_of):
    plan = plan_of(strategies=["at"], pairs=["digits-mlp"])
    [(run, reason)] = plan.skipped
    assert run.label == "at"
    assert "is no map (C, H, W)" in reason


def test_a_model_is_probed_once_for_the_same_taps(plan_of, monkeypatch):
    probed = Counter()

    def counted(spec, taps, dataset):
        probed[spec.name, taps] += 1
        return probe(spec, taps, dataset)

    monkeypatch.setattr("kdbench.layout.probe", counted)
    plan_of(strategies=["kd", "fitnet", "at", "at[at_weight=2]"])
    assert {name for name, taps in probed if not taps} > {"convnet_32", "convnet_6"}
    assert set(probed.values()) == {1}


def test_a_stage_that_is_not_there_is_a_reason(plan_of):
    plan = plan_of(strategies=["fitnet[hint_stage=7]"], pairs=["digits-mlp"])
    assert "stage7" in plan.skipped[0][1]
    assert "stage1" in plan.skipped[0][1]


def test_what_is_finished_is_not_done_again(plan_of, run_digits, tmp_path):
    """Nor what was skipped: fsp matches maps, and one pair has none."""
    strategies = {"strategies": ["kd", "fsp"]}
    failed, records = run_digits(tmp_path, **strategies)
    assert failed == 0
    plan = plan_of({r.id: r for r in records.values()}, **strategies)
    assert plan.todo == ()
    finished = [r for r in records.values() if r.status == "finished"]
    assert len(plan.done) == len(finished) < len(records)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"strategies": ["kdd"]}, "unknown strategy 'kdd' in suite 'digits'"),
        ({"strategies": ["kd[temprature=1]"]}, "did you mean 'temperature'"),
        ({"strategies": ["kd[temperature=0]"]}, "temperature"),
        ({"pairs": ["digits-mpl"]}, "did you mean 'digits-mlp'"),
        ({"datasets": ["digit"]}, "did you mean 'digits'"),
    ],
)
def test_bad_names_and_values_are_refused(plan_of, change, says):
    with pytest.raises(UserError) as caught:
        plan_of(**change)
    assert says in str(caught.value)


def test_variants_stand_side_by_side(plan_of):
    plan = plan_of(strategies=["kd", "kd[temperature=2,8]"], pairs=["digits-mlp"])
    labels = {r.label for r in runs_of(plan)}
    assert labels >= {"kd", "kd[temperature=2]", "kd[temperature=8]"}


def test_a_model_learns_at_its_own_rate_and_the_id_knows_only_that(plan_of):
    own = {"lr_by_model": {"mlp_bn_8_8": 0.5, "lenet": 0.25}}
    runs = runs_of(plan_of(strategies=["kd"], pairs=["digits-mlp"], **own))
    assert {(r.students[0], r.recipe.lr) for r in runs} == {
        ("mlp_bn_256_128", 0.02),
        ("mlp_bn_8_8", 0.5),
    }
    plain = runs_of(plan_of(strategies=["kd"], pairs=["digits-mlp"]))
    teachers = [{r.id for r in some if r.is_teacher} for some in (runs, plain)]
    assert teachers[0] == teachers[1]


def test_teachers_are_trained_as_long_as_the_suite_says(plan_of):
    grid = {"strategies": ["kd"], "pairs": ["digits-mlp"]}
    plain, longer = (
        runs_of(plan_of(**grid, epochs=4, milestones=(2, 3), schedule="step", **more))
        for more in ({}, {"teacher_epochs": 10})
    )
    [teacher] = {r.id: r for r in longer if r.is_teacher}.values()
    same = {"teacher_epochs": None}
    assert teacher.recipe.epochs == 10
    assert teacher.recipe.milestones == (5, 8)
    for run, before in zip(longer, plain, strict=True):
        assert run.id != before.id
        if not run.is_teacher:
            assert run.recipe.model_copy(update=same) == before.recipe
            assert run.recipe.sentence().startswith("4 epochs (teachers: 10), batch")
    assert teacher.recipe.sentence().startswith("10 epochs, batch")


def test_a_rate_of_a_model_that_does_not_exist_is_said(plan_of):
    with pytest.raises(UserError, match="did you mean 'lenet'"):
        plan_of(lr_by_model={"lenett": 0.1})


def test_a_pair_of_the_suites_own(plan_of):
    sides = {"teacher": "convnet_32", "student": "mlp_bn_8_8"}
    plan = plan_of(pairs=["mine"], define_pairs={"mine": sides}, strategies=["kd"])
    students = [r for r in runs_of(plan) if not r.is_teacher]
    assert {(r.pair, r.teachers[0], r.students[0]) for r in students} == {
        ("mine", "convnet_32", "mlp_bn_8_8")
    }


def test_a_pair_that_nobody_defines_or_two_do_is_said(plan_of):
    sides = {"teacher": "convnet_32", "student": "mlp_bn_8_8"}
    with pytest.raises(UserError, match="did you mean 'mine'"):
        plan_of(pairs=["mein"], define_pairs={"mine": sides})
    with pytest.raises(UserError, match="give yours another"):
        plan_of(pairs=["digits-mlp"], define_pairs={"digits-mlp": sides})
    sides = {"teacher": "convnet_33", "student": "mlp_bn_8_8"}
    with pytest.raises(UserError, match="unknown model 'convnet_33'"):
        plan_of(pairs=["mine"], define_pairs={"mine": sides})


def test_two_plugins_that_offer_kd_stop_only_who_names_it(helpers, tmp_path):
    path = tmp_path / "second.py"
    path.write_text(
        "from kdbench import hookimpl\n"
        "from kdbench_soft_targets.kd import SoftTargets\n"
        "class Second(SoftTargets): name = 'kd'\n"
        "Second.__dataclass_fields__ = SoftTargets.__dataclass_fields__\n"
        "@hookimpl\n"
        "def kdbench_strategies(): return [Second]\n"
    )
    host = Host(files=[path])
    plan = make_plan(helpers["suite"](host, strategies=["dkd"]), host, {})
    assert {run.strategy for group in plan.todo for run in group.runs} == {
        "teacher",
        "scratch",
        "dkd",
    }
    [note] = [note for note in plan.notes if "'kd' is missing" in note]
    assert "second.py" in note
    assert "kdbench-soft-targets" in note
    with pytest.raises(UserError, match="'kd' is offered by"):
        make_plan(helpers["suite"](host, strategies=["kd"]), host, {})
