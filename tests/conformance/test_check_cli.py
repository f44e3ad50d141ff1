"""`kdbench check`: what it prints, as text and as JSON, and how it ends."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from kdbench import check_cli
from kdbench.api import UserError
from kdbench.cli import app as whole
from kdbench.conformance import telling
from kdbench.conformance.checks import Check, Finding, checks_of
from kdbench.conformance.examination import Examination, Result, chosen, examine
from kdbench.conformance.targets import Thing, find

MUSEUM = Path(__file__).parents[1] / "museum"
GREEK = str(MUSEUM / "greek_letter.py")

app = typer.Typer()
app.command()(check_cli.check)


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


def refused(*arguments):
    done = run(*arguments)
    assert isinstance(done.exception, UserError)
    assert done.stdout == ""
    return str(done.exception)


# --- how it ends ---


def test_all_passed():
    done = run("kd", "--only", "plain-names", "--only", "cited")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "strategy kd (kdbench-soft-targets)"
    assert lines[1].split()[:5] == ["ok", "strategy", "kd", "2", "passed"]
    assert lines[-1].startswith("none failed of 2 checks")


def test_a_failure_is_told_in_full():
    done = run(GREEK, "--only", "plain-names", "--only", "typed")
    assert done.exit_code == 1
    [check] = [c for c in checks_of("strategy") if c.name == "plain-names"]
    assert "FAILED  strategy  greek_letter  1 failed, 1 passed" in done.stdout
    assert "plain-names: a letter for a name: alpha" in done.stdout
    for text in (check.what, check.why, check.fix):
        assert text in done.stdout
    assert "1 failed of 2 checks" in done.stdout


def test_a_broken_file_fails_and_is_no_bad_input():
    done = run(str(MUSEUM / "import_error.py"))
    assert done.exit_code == 1
    assert "loads: " in done.stdout
    assert "Traceback" not in done.output


def test_what_did_not_apply_is_said_once_for_each_reason():
    done = run("scratch", "--only", "refuses-nonsense", "--only", "cited")
    assert done.exit_code == 0
    assert "1 passed, 1 not applicable" in done.stdout
    assert (
        "  scratch: refuses-nonsense: it has no weight, temperature or number of epochs"
        in done.stdout
    )


def test_bad_input():
    assert "did you mean 'kd'" in refused("kdx")
    assert "name what to check" in refused()
    assert "nowhere.py: no such file" in refused("nowhere.py")
    said = refused("kd", "--only", "plainnames")
    assert "unknown check 'plainnames'; did you mean" in said
    assert "'plain-names'" in said
    assert "together" in refused("kd", "--pair", "digits-mlp")
    assert "together" in refused("kd", "--dataset", "digits")
    assert "unknown pair" in refused("kd", "--pair", "nowhere", "--dataset", "digits")


def test_the_whole_command_line_ends_so(tmp_path):
    def code(*arguments):
        program = [sys.executable, "-m", "kdbench.cli", "check", *arguments]
        return subprocess.run(program, capture_output=True, text=True, cwd=tmp_path)

    done = code("kdx")
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown target 'kdx'")
    done = code(GREEK, "--only", "plain-names")
    assert done.returncode == 1
    assert done.stderr == ""  # no bar where there is no terminal


def test_help_is_light():
    program = """
import sys
sys.argv = ["kdbench", "check", "--help"]
from kdbench.cli import main
try:
    main()
except SystemExit as end:
    assert end.code == 0
assert not {"torch", "numpy", "pluggy", "kdbench.plugins"} & {*sys.modules}
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_it_is_a_command_of_kdbench():
    done = CliRunner().invoke(whole, ["check", GREEK, "--only", "plain-names"])
    assert done.exit_code == 1


# --- JSON, and the list ---


def test_json_holds_everything():
    done = run(GREEK, "--json", "--only", "plain-names", "--only", "cited")
    assert done.exit_code == 1
    data = json.loads(done.stdout)
    assert data["target"] == GREEK
    assert data["failed"] is True
    [thing] = data["things"]
    assert (thing["kind"], thing["name"]) == ("strategy", "greek_letter")
    cited, plain = thing["findings"]
    assert (cited["check"], cited["status"], cited["said"]) == ("cited", "passed", "")
    assert (plain["check"], plain["status"]) == ("plain-names", "failed")
    assert plain["said"] == "a letter for a name: alpha (call it ..._weight)"
    [check] = [c for c in checks_of("strategy") if c.name == "plain-names"]
    assert [plain[k] for k in ("what", "why", "fix")] == [
        check.what,
        check.why,
        check.fix,
    ]
    assert plain["seconds"] >= 0


def test_what_a_plugin_prints_spoils_no_json(tmp_path):
    printing = "    def __post_init__(self):\n        print('HA')\n\n    def loss"
    source = Path(GREEK).read_text(encoding="utf-8").replace("    def loss", printing)
    loud = tmp_path / "loud.py"
    loud.write_text(source.replace("greek_letter", "loud"))
    done = run(str(loud), "--json", "--only", "round-trip")
    assert json.loads(done.stdout)["things"][0]["name"] == "loud"
    assert "HA" in done.stderr


def test_the_list_of_checks():
    done = run("--list")
    assert done.exit_code == 0
    assert done.stdout.startswith("strategy:\n  cited\n    expected: ")
    assert "\nplugin:\n  loads\n" in done.stdout
    every = json.loads(run("--list", "--json").stdout)
    assert {"check", "kind", "what", "why", "fix"} == set(every[0])
    assert [e["check"] for e in every if e["kind"] == "strategy"] == [
        check.name for check in checks_of("strategy")
    ]
    one = json.loads(run("--list", "--json", "--only", "typed").stdout)
    assert [(e["check"], e["kind"]) for e in one] == [("typed", "strategy")]
    assert "unknown check 'type'" in refused("--list", "--only", "type")


# --- elsewhere, by hand ---


def test_a_pair_and_a_dataset_by_hand(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "kdbench.conformance.targets.find",
        lambda text, toy=None: asked.append(toy) or find(GREEK),
    )
    run("kd", "--pair", "digits-mlp", "--dataset", "digits", "--only", "cited")
    run("kd", "--only", "cited")
    assert (asked[0].dataset, asked[0].pair) == ("digits", "digits-mlp")
    assert asked[1] is None


# --- the parts ---


def a_check(name="finite-terms", kind="strategy", look=lambda _: None):
    return Check(name, kind, "What.", "Why.", "Fix.", look)


def test_things_without_checks_are_left_out():
    nothing = Thing("nothing", "x", None)
    strategy = Thing("strategy", "y", None)
    assert [thing for thing, _ in chosen([nothing, strategy])] == [strategy]
    [(_, checks)] = chosen([strategy], ["typed", "cited"])
    assert [check.name for check in checks] == ["cited", "typed"]


def test_progress_is_told_before_each_check():
    told = []
    target = find(GREEK)
    examine(
        target, ["cited", "typed", "own-names"], lambda *what: told.append(what[1:])
    )
    assert [(check.name, done, total) for check, done, total in told] == [
        ("own-names", 0, 3),
        ("cited", 1, 3),
        ("typed", 2, 3),
    ]


def printed(examination, terminal=True, width=60):
    console = Console(
        file=io.StringIO(), force_terminal=terminal, width=width, no_color=True
    )
    telling.print_examination(examination, console)
    return console.file.getvalue()


def test_names_are_no_markup_and_lines_are_broken_at_words():
    thing = Thing("strategy", "odd[bold]", None)
    finding = Finding(a_check(), "failed", "word " * 30 + "[/bold] :smile:", 1.0)
    text = printed(Examination("[red]", (Result(thing, (finding,)),)))
    assert "odd[bold]" in text
    assert "[/bold] :smile:" in text
    assert "[red]" in text
    assert "wor\n" not in text


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_only_on_a_terminal(terminal):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80)
    with telling.progress(console) as tell:
        tell(Thing("strategy", "x[y]", None), a_check(), 3, 9)
    text = console.file.getvalue()
    assert ("strategy x[y]: finite-terms" in text) is terminal
    assert bool(text) is terminal
