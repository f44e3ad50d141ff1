"""What a suite requires of the distributions around it: checked before all else."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdbench.api import UserError
from kdbench.cli import main
from kdbench.config import changed, read_suite
from kdbench.plan import make_plan
from kdbench.plugins import Host

SUITE = """
datasets = ["digits"]
pairs = ["digits-mlp"]
strategies = ["scratch"]
"""


def written(folder: Path, requires: str, name: str = "mine", more: str = "") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(f"# a suite\n\nrequires = {requires}\n{SUITE}\n{more}")
    return path


def refused(path: Path, host: Host) -> str:
    with pytest.raises(UserError) as caught:
        make_plan(read_suite(path), host, {})
    return str(caught.value)


@pytest.mark.parametrize(
    ("requires", "says"),
    [
        ('["kdbench>>1"]', "'kdbench>>1' is no requirement"),
        ('["a b"]', "'a b' is no requirement"),
        ('["fine", ""]', "'' is no requirement"),
        ('["kdbench[onnx]"]', "extras and addresses are not checked"),
        ('["x @ https://example.org/x.whl"]', "extras and addresses are not checked"),
        ('"kdbench"', "write a list, ['kdbench']"),
        ("[1]", "should be a valid string"),
    ],
)
def test_a_bad_requirement_is_named_with_file_and_line(tmp_path, requires, says):
    path = written(tmp_path, requires)
    with pytest.raises(UserError) as caught:
        read_suite(path)
    assert f"{path}, line 3: requires" in str(caught.value)
    assert says in str(caught.value)


def test_what_is_there_is_accepted(tmp_path, host):
    texts = [
        "kdbench>=0.1",
        "KDBench_Soft.Targets>=0.1,<9",
        "torch",
        "not-there>=1; python_version < '3'",
    ]
    assert make_plan(read_suite(written(tmp_path, str(texts))), host, {}).todo


def test_a_pre_release_counts(tmp_path, host, monkeypatch):
    monkeypatch.setattr("kdbench.requirements.__version__", "0.2.dev1")
    assert make_plan(read_suite(written(tmp_path, '["kdbench>=0.1"]')), host, {}).todo
    assert "kdbench>=0.2, and 0.2.dev1" in refused(
        written(tmp_path, '["kdbench>=0.2"]'), host
    )


def test_all_that_is_lacking_is_named_with_one_command(tmp_path, host):
    path = written(tmp_path, '["kdbench-nowhere>=1", "kdbench>=9", "torch<1"]')
    import torch

    from kdbench import __version__

    assert refused(path, host).splitlines() == [
        "suite 'mine' requires",
        "  kdbench-nowhere>=1, which is not installed",
        f"  kdbench>=9, and {__version__} is installed",
        f"  torch<1, and {torch.__version__} is installed",
        '  pip install "kdbench-nowhere>=1" "kdbench>=9" "torch<1"',
    ]


def test_a_plugin_that_is_left_out_or_broken_is_named(tmp_path, monkeypatch):
    path = written(tmp_path, '["kdbench-text"]')
    assert refused(path, Host(only=[])).endswith(
        "kdbench-text, whose plugin 'text' is disabled (left out by --no-plugins); "
        "see `kdbench plugins`"
    )
    broken = Host(only=["text"])
    [plugin] = [p for p in broken.plugins if p.name == "text"]
    plugin.broke(OSError("no disk"))
    assert refused(path, broken).endswith(
        "kdbench-text, whose plugin 'text' is broken (OSError: no disk); "
        "see `kdbench plugins`"
    )


def test_a_suite_adds_to_what_the_one_it_extends_requires(tmp_path):
    written(tmp_path, '["a>=1", "b"]', "base")
    path = written(tmp_path, '["c", "a>=1"]', more='extends = "base.toml"\n')
    assert read_suite(path).requires == ("a>=1", "b", "c")
    bare = tmp_path / "bare.toml"
    bare.write_text('extends = "base.toml"\n')
    assert read_suite(bare).requires == ("a>=1", "b")


def test_choices_of_the_command_line_and_systems_keep_it(tmp_path):
    suite = read_suite(written(tmp_path, '["a"]'))
    assert changed(suite, {"seeds": 1}).requires == ("a",)
    path = tmp_path / "parts.toml"
    path.write_text(
        'requires = ["a"]\npairs = ["digits-mlp"]\nstrategies = ["scratch"]\n'
        '[[systems]]\ntitle = "one"\ndatasets = ["digits"]\n'
    )
    assert changed(read_suite(path), {"seeds": 1}).requires == ("a",)


def test_it_changes_no_run_id(tmp_path, host):
    one, other = (
        make_plan(read_suite(written(tmp_path, requires)), host, {})
        for requires in ("[]", '["torch"]')
    )
    assert one.ids == other.ids


def test_nothing_starts_where_something_is_lacking(tmp_path, monkeypatch, capsys):
    path = written(tmp_path, '["kdbench-nowhere"]')
    monkeypatch.chdir(tmp_path)
    for command in ("run", "plan"):
        monkeypatch.setattr("sys.argv", ["kdbench", command, str(path)])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
        assert 'pip install "kdbench-nowhere"' in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]
