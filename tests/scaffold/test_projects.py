"""A new plugin in a fresh environment: installs, passes its tests, and runs."""

from __future__ import annotations

import json
import tarfile
import zipfile

import pytest

from kdbench.conformance.checks import checks_of
from kdbench.scaffold.naming import names_of
from kdbench.scaffold.writing import OFFERED, offered, rendered, write
from kdbench.store import load

NAMES = names_of("my-own")
RUNS = {
    "strategy": ("-s", "my_own", "-p", "digits-mlp"),
    "dataset": ("-s", "scratch", "-d", "my_own", "-p", "split-mlp"),
    "pair": ("-s", "scratch", "-p", "my_own"),
    "measure": ("-s", "scratch", "-p", "digits-mlp", "--measure", "my_own"),
}

pytestmark = pytest.mark.slow


def passed(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", OFFERED)
def test_it_installs_passes_and_runs(environment, tmp_path, kind):
    project = tmp_path / NAMES.folder
    write(rendered(kind, NAMES), project)

    def run(*command):
        return passed(environment.run(*command, cwd=project))

    run("pip", "install", "--no-deps", "--no-build-isolation", "-e", ".")

    plugins = json.loads(run("kdbench", "plugins", "--json"))
    [mine] = [plugin for plugin in plugins if plugin["name"] == "my_own"]
    assert (mine["status"], mine["distribution"]) == ("ok", "my-own")
    names = {name for offers in mine["offers"].values() for name in offers}
    assert names == set(offered(kind, NAMES))

    tests = run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert "skipped" not in tests
    if kind == "strategy":
        assert f"{len(checks_of('strategy')) + 3} passed" in tests

    run("kdbench", "check", "my_own")
    once = ("--epochs", "1", "--seeds", "1", "--no-report", "--no-speed")
    said = run("kdbench", "run", "digits", *RUNS[kind], *once)
    assert "0 failed" in said
    records = load([project / "results" / "digits"]).records
    assert {record.status for record in records} == {"finished"}
    if kind == "measure":
        assert all(0 < record.measures["my_own"] < 100 for record in records)


MUTATIONS = {
    "strategy": ("(teacher - student)", "(student - teacher)"),
    "dataset": ("0.75 * radius", "0.7 * radius"),
    "pair": ("width, 2 * width", "width, 3 * width"),
    "measure": ("first - second", "first"),
}


@pytest.mark.parametrize("kind", OFFERED)
def test_its_tests_notice_a_mistake(environment, tmp_path, kind):
    project = tmp_path / NAMES.folder
    files = rendered(kind, NAMES)
    old, new = MUTATIONS[kind]
    head, doc, code = files["my_own.py"].split('"""', 2)
    assert old in code
    files["my_own.py"] = '"""'.join((head, doc, code.replace(old, new)))
    write(files, project)
    tests = environment.run(
        "python", "-m", "pytest", "-q", "-k", "not contract", cwd=project
    )
    assert tests.returncode == 1, tests.stdout


def test_what_is_published_is_the_module_and_its_tests(environment, tmp_path):
    """Results and caches beside them stay at home."""
    project = tmp_path / NAMES.folder
    write(rendered("strategy", NAMES), project)
    (project / "results").mkdir()
    (project / "results/run.json").write_text("{}")
    passed(environment.run("python", "-m", "hatchling", "build", cwd=project))
    with zipfile.ZipFile(project / "dist/my_own-0.1.0-py3-none-any.whl") as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == {"my_own.py"}
    with tarfile.open(project / "dist/my_own-0.1.0.tar.gz") as source:
        names = {name.split("/", 1)[1] for name in source.getnames()}
    about = {"pyproject.toml", "README.md", "PKG-INFO"}
    assert names == about | {"my_own.py", "tests/test_my_own.py"}
