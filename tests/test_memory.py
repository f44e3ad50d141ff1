"""Group size by memory: what runs need, and what there is."""

from __future__ import annotations

import os

import pytest

from kdbench import memory
from kdbench.api import UserError
from kdbench.execute import make_jobs
from kdbench.plan import make_plan

STUDENT = 698 * 4  # bytes of the digits-mlp pair's student, as its table says


@pytest.fixture(scope="module")
def group(host, helpers):
    """A group of five runs of the digits-mlp pair."""
    suite = helpers["suite"](
        host, pairs=["digits-mlp"], strategies=["kd[temperature=1,2,3]", "scratch"]
    )
    plan = make_plan(suite, host, {})
    return next(group for group in plan.todo if group.teachers)


@pytest.fixture
def needs(group, host):
    """The bytes that its teacher needs, and each of its learners."""
    teacher = memory._size(host, "digits", group.teachers[0].students[0]).weights
    student = memory._size(host, "digits", group.runs[0].students[0])
    return teacher, student.trained(group.runs[0].recipe)


def runs_of(groups):
    return [run.id for group in groups for run in group.runs]


def test_a_learner_needs_weights_gradients_and_momentum(group, host):
    size = memory._size(host, "digits", "mlp_bn_8_8")
    assert size.parameters == STUDENT
    recipe = group.runs[0].recipe
    assert recipe.momentum > 0
    assert size.trained(recipe) == size.weights + 2 * STUDENT
    plain = recipe.model_copy(update={"momentum": 0.0})
    assert size.trained(plain) == size.weights + STUDENT
    adam = recipe.model_copy(update={"optimiser": "adam"})
    assert size.trained(adam) == size.weights + 3 * STUDENT


def test_a_group_that_fits_stays_whole(group, host):
    assert memory.fitting(group, host, None, "cpu") == [group]
    assert memory.fitting(group, host, 10**9, "cpu") == [group]


@pytest.mark.parametrize("together", [1, 2, 3])
def test_a_group_is_split_to_fit_half_the_memory(group, host, needs, together):
    teacher, learner = needs
    room = 2 * (teacher + together * learner)
    parts = memory.fitting(group, host, room, "cpu")
    assert runs_of(parts) == runs_of([group])
    assert max(len(part.runs) for part in parts) == together
    assert len(parts) == -(-len(group.runs) // together)
    assert len({part.id for part in parts}) == len(parts)
    assert all(part.teachers == group.teachers for part in parts)


def test_groups_trained_at_once_share_the_memory(group, host, needs):
    teacher, learner = needs
    room = 2 * (teacher + 4 * learner)
    one, two = (len(memory.fitting(group, host, room, "cpu", k)) for k in (1, 2))
    assert one < two


def test_a_run_that_cannot_fit_is_refused_with_numbers(group, host, needs):
    teacher, learner = needs
    assert memory.fitting(group, host, teacher + learner, "cpu")  # just so, each alone
    with pytest.raises(UserError, match=r"needs at least 0\.0 GB") as caught:
        memory.fitting(group, host, teacher + learner - 1, "cuda:0")
    assert "free on cuda:0; free some, take another --device" in str(caught.value)


def test_jobs_are_parts_that_fit(host, helpers, group, needs, tmp_path, monkeypatch):
    teacher, learner = needs
    room = 2 * (os.cpu_count() or 1) * (teacher + 2 * learner)  # one thread each
    suite = helpers["suite"](
        host, pairs=["digits-mlp"], strategies=["kd[temperature=1,2,3]", "scratch"]
    )
    plan = make_plan(suite, host, {})
    arguments = (plan, host, {"digits": 1347}, tmp_path, None, "cpu", 60.0)
    monkeypatch.setattr("kdbench.execute.available", lambda _: room)
    first, *parts = make_jobs(*arguments)
    assert first.group.runs == group.teachers
    assert max(len(job.group.runs) for job in parts) == 2
    assert sorted(runs_of(j.group for j in parts)) == sorted(runs_of([group]))
    assert {job.needs for job in parts} == {frozenset(runs_of([first.group]))}
    monkeypatch.setattr("kdbench.execute.available", lambda _: learner)
    with pytest.raises(UserError, match="needs at least"):
        make_jobs(*arguments)


def test_halves_are_all_of_it(group):
    halves = memory.halves(group, group.runs[1:])
    assert runs_of(halves) == [run.id for run in group.runs[1:]]
    assert abs(len(halves[0].runs) - len(halves[1].runs)) <= 1
    assert halves[0].id != halves[1].id != group.id


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of 1000 kB available memory, in control groups that files describe."""

    def write(membership, **files):
        (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 1000 kB\n")
        (tmp_path / "cgroup").write_text(membership)
        for path, content in files.items():
            file = tmp_path / "fs" / path.replace("__", "/")
            file = file.with_name(file.name.replace("memory_", "memory."))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)

    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "MEMBERSHIP", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "CGROUP", tmp_path / "fs")
    return write


def test_without_limits_it_is_what_the_kernel_calls_available(machine):
    machine("0::/job\n", job__memory_max="max\n", job__memory_current="5\n")
    assert memory.available("cpu") == 1000 * 1024


def test_a_containers_limit_counts_without_files_that_can_be_dropped(machine):
    machine(
        "0::/job/task\n",
        job__memory_max="500000\n",
        job__memory_current="300000\n",
        job__memory_stat="anon 7\ninactive_file 100000\n",
        job__task__memory_max="max\n",
    )
    assert memory.available("cpu") == 500000 - 300000 + 100000


def test_control_groups_of_the_first_version_count_too(machine):
    machine(
        "4:cpu,memory:/job\n0::/\n",
        memory__job__memory_limit_in_bytes="400000\n",
        memory__job__memory_usage_in_bytes="500000\n",
    )
    assert memory.available("cpu") == 0


def test_here_there_is_some():
    found = memory.available("cpu")
    assert found is None or found > 10**7
