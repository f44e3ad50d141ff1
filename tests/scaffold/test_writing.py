"""What `kdbench new` writes: exactly these files, clean, whole or not at all."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from kdbench.api import UserError
from kdbench.cli import main
from kdbench.new_cli import Kind
from kdbench.scaffold.naming import LONGEST, names_of
from kdbench.scaffold.writing import OFFERED, rendered, write

KINDS = [kind.value for kind in Kind]
SHORT, LONG = "m2", "n" * (LONGEST - 2) + "_2"


def files_in(folder):
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def kdbench(monkeypatch, capsys, tmp_path):
    """The command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["kdbench", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return end.value.code or 0, printed.out, printed.err

    return run


def test_every_kind_can_be_written():
    assert list(OFFERED) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_these_files_and_no_others(kdbench, tmp_path, kind):
    code, said, _ = kdbench("new", "my-own", "--kind", kind)
    assert code == 0
    files = {"pyproject.toml", "my_own.py", "tests/test_my_own.py", "README.md"}
    assert files_in(tmp_path) == {f"my-own/{file}" for file in files}
    for line in (*files, "cd my-own", 'pip install -e ".[test]"', "python -m pytest"):
        assert f"  {line}\n" in said
    assert "  kdbench check my_own\n  kdbench run digits " in said
    readme = (tmp_path / "my-own/README.md").read_text()
    assert said.splitlines()[-1].strip() in readme


def test_the_distribution_names_its_entry_point_and_what_it_needs(tmp_path):
    write(rendered("strategy", names_of("my-kd")), tmp_path / "my-kd")
    project = tomllib.loads((tmp_path / "my-kd/pyproject.toml").read_text())["project"]
    assert project["name"] == "my-kd"
    assert project["entry-points"] == {"kdbench": {"my_kd": "my_kd"}}
    assert project["dependencies"] == ["kdbench>=0.1"]
    assert project["requires-python"] == ">=3.11"


def test_somewhere_else(kdbench, tmp_path):
    (tmp_path / "else where").mkdir()
    code, said, _ = kdbench("new", "my_kd", "--in", "else where")
    assert code == 0
    assert "cd 'else where/my_kd'" in said
    assert (tmp_path / "else where/my_kd/my_kd.py").is_file()


@pytest.mark.parametrize("name", [SHORT, LONG])
@pytest.mark.parametrize("kind", KINDS)
def test_modules_are_short(kind, name):
    module = rendered(kind, names_of(name))[f"{name}.py"]
    assert 30 <= module.count("\n") <= 52


@pytest.fixture
def everything(tmp_path):
    """Every kind, with a short and a long name: what a formatter breaks differs."""
    folders = []
    for kind in KINDS:
        for name in (SHORT, LONG):
            folder = tmp_path / f"{kind}-{len(name)}"
            write(rendered(kind, names_of(name)), folder)
            folders.append(folder)
    return folders


def ran(*command, cwd):
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_has_nothing_to_say(everything):
    for folder in everything:
        ran("ruff", "check", "--isolated", "--extend-select=E,W,I,UP,B,SIM", cwd=folder)
        ran("ruff", "format", "--isolated", "--check", cwd=folder)


@pytest.mark.slow
def test_mypy_has_nothing_to_say(everything):
    for folder in everything:
        [module] = folder.glob("*.py")
        cache = f"--cache-dir={folder.parent / 'mypy'}"
        ran("mypy", "--strict", "--config-file=", cache, module.name, cwd=folder)


@pytest.mark.parametrize("there", ["file", "folder", "link"])
def test_what_is_there_stays(kdbench, tmp_path, there):
    target = tmp_path / "my_kd"
    if there == "file":
        target.write_text("mine")
    elif there == "folder":
        target.mkdir()
    else:
        target.symlink_to("nowhere")
    code, said, wrong = kdbench("new", "my_kd")
    assert (code, said) == (2, "")
    assert "my_kd exists already and is left as it is" in wrong
    assert [path.name for path in tmp_path.iterdir()] == ["my_kd"]
    assert target.is_symlink() or target.is_dir() or target.read_text() == "mine"
    assert not target.is_dir() or not files_in(target)


@pytest.mark.parametrize("place", ["nowhere", "a file"])
def test_a_place_that_is_no_folder(kdbench, tmp_path, place):
    (tmp_path / "a file").write_text("mine")
    code, _, wrong = kdbench("new", "my_kd", "--in", place)
    assert code == 2
    assert f"error: there is no folder {place}" in wrong
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]


def test_a_bad_name_writes_nothing(kdbench, tmp_path):
    for name in ("MyKD", "class", "kd"):
        code, said, wrong = kdbench("new", name)
        assert (code, said) == (2, "")
        assert wrong.startswith(f"error: {name!r} ")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_whole_is_not_written(monkeypatch, tmp_path):
    """The disk is full at the third file, or the folder may not be changed."""
    files = rendered("strategy", names_of("my_kd"))
    written = []
    real = Path.write_text

    def full(path, *arguments, **values):
        written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        return real(path, *arguments, **values)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match="No space left on device; nothing is left"):
        write(files, tmp_path / "my_kd")
    assert len(written) == 3
    assert list(tmp_path.iterdir()) == []

    def refuse(path, *arguments, **values):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match="Permission denied"):
        write(files, tmp_path / "my_kd")
    assert list(tmp_path.iterdir()) == []
