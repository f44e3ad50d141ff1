"""`kdbench plugins`, and the options that choose what every command loads."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from importlib.metadata import EntryPoint

import pytest

from kdbench import hookspecs
from kdbench.api import KdbenchDeprecationWarning
from kdbench.cli import main
from kdbench.execute import make_jobs
from kdbench.plan import make_plan
from kdbench.plugins import Host

LOADING = (
    ["run"],
    ["plan"],
    ["list"],
    ["show"],
    ["plugins"],
    ["info"],
    ["report"],
    ["profile"],
    ["export"],
    ["reproduce"],
    ["teacher", "import"],
)
OTHERS = (["compare"], ["teacher", "list"], ["teacher", "export"])
OPTIONS = ("--plugin", "--no-plugins", "--strict", "--debug")

GOOD = """
from dataclasses import dataclass
import torch.nn.functional as F
from kdbench import Strategy, hookimpl

@dataclass(frozen=True, kw_only=True)
class Mine(Strategy):
    '''Mine.'''
    name = "NAME"
    teachers = 0

    def loss(self, batch):
        return {"ce": F.cross_entropy(batch.student.logits, batch.targets)}

@hookimpl
def kdbench_strategies():
    return [Mine]
"""
BROKEN = "import nothing_of_this_name\n"
EVENT = "\n@hookimpl\ndef kdbench_run_started(run):\n    pass\n"


@pytest.fixture
def kdbench(monkeypatch, capsys, tmp_path):
    """The command line in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["kdbench", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return end.value.code or 0, printed.out, printed.err

    return run


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Make these texts the only installed plugins, by name; forget earlier imports."""

    def install(**texts: str) -> None:
        folder = tmp_path / "site"
        folder.mkdir(exist_ok=True)
        monkeypatch.syspath_prepend(str(folder))
        found = []
        for name, text in texts.items():
            module = f"{name}_{abs(hash(tmp_path)) % 10**8}"
            (folder / f"{module}.py").write_text(text.replace("NAME", name))
            sys.modules.pop(module, None)
            found.append(EntryPoint(name.rstrip("_"), module, "kdbench"))
        monkeypatch.setattr("kdbench.plugins.entry_points", lambda group: found)

    return install


@pytest.mark.parametrize("command", LOADING, ids=" ".join)
def test_a_command_that_loads_plugins_has_the_options_in_one_section(kdbench, command):
    code, out, _ = kdbench(*command, "--help")
    assert code == 0
    _, _, section = out.partition("\nPlugins:\n")
    assert tuple(re.findall(r"^  (--[\w-]+)", section, re.M)) == OPTIONS
    assert "[env var: KDBENCH_STRICT]" in " ".join(section.split())
    before = out.partition("\nPlugins:\n")[0]
    assert not re.search(r"^  --(plugin|no-plugins|strict|debug)\b", before, re.M)


@pytest.mark.parametrize("command", OTHERS, ids=" ".join)
def test_the_others_have_none_of_them(kdbench, command):
    code, out, _ = kdbench(*command, "--help")
    assert code == 0
    assert "--debug" in out
    assert "--plugin" not in out


def test_every_command_is_of_one_kind_or_the_other(kdbench):
    """One that is added is to say which: by these lists."""
    _, out, _ = kdbench("--help")
    listed = re.findall(r"^  (\w+) ", out.partition("Commands:")[2], re.M)
    known = {command[0] for command in (*LOADING, *OTHERS)}
    assert set(listed) - known <= {"new", "check"}  # they look at plugins themselves


@pytest.mark.parametrize("command", LOADING, ids=" ".join)
def test_no_help_imports_torch_or_plugins(command):
    code = f"""
import sys
sys.argv = ["kdbench", *{command}, "--help"]
from kdbench.cli import main
try:
    main()
except SystemExit as end:
    assert end.code == 0
heavy = {{"torch", "numpy", "pandas", "rich", "kdbench.plugins", "kdbench.api"}}
print("loaded:", sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("loaded: []\n")


# --- which are loaded -----------------------------------------------------------------


def test_no_plugins_leaves_only_kdbench_and_the_files(kdbench, installed, tmp_path):
    installed(theirs=GOOD)
    (tmp_path / "mine.py").write_text(GOOD.replace("NAME", "mine"))
    _, out, _ = kdbench("list", "--json", "--no-plugins", "--plugin", "mine.py")
    listed = {row["name"]: row["plugin"] for row in json.loads(out)}
    assert listed["mine"] == "(file)"
    assert set(listed.values()) == {"kdbench", "(file)"}
    _, out, _ = kdbench("list", "--json")
    assert "theirs" in {row["name"] for row in json.loads(out)}
    code, _, err = kdbench("show", "theirs", "--no-plugins")
    assert code == 2
    assert "plugins left out by --no-plugins: theirs" in err


def test_what_is_not_named_by_the_environment_is_said(kdbench, installed, monkeypatch):
    installed(one=GOOD, other=GOOD)
    monkeypatch.setenv("KDBENCH_PLUGINS", "one")
    code, _, err = kdbench("run", "-s", "other")
    assert code == 2
    assert "plugins not in KDBENCH_PLUGINS: other" in err
    monkeypatch.setenv("KDBENCH_PLUGINS", "")
    assert Host().only == frozenset()
    monkeypatch.setenv("KDBENCH_PLUGINS", "none")
    code, _, err = kdbench("list")
    assert code == 2
    assert "unknown plugin 'none' in KDBENCH_PLUGINS" in err


SAYS_WHO = """
from dataclasses import dataclass
import torch.nn.functional as F
from kdbench import Strategy, hookimpl

@dataclass(frozen=True, kw_only=True)
class Who(Strategy):
    '''Fails with what plugins its process has loaded.'''
    name = "who"
    teachers = 0

    def loss(self, batch):
        import sys
        raise ValueError(f"loaded: {'kdbench_soft_targets' in sys.modules}")

@hookimpl
def kdbench_strategies():
    return [Who]
"""


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--no-plugins",)])
def test_worker_processes_load_what_was_chosen(tmp_path, options):
    (tmp_path / "who.py").write_text(SAYS_WHO)
    suite = 'datasets = ["digits"]\npairs = ["digits-mlp"]\nstrategies = ["who"]\n'
    (tmp_path / "a.toml").write_text(suite + "seeds = 1\n[recipe]\nepochs = 1\n")
    arguments = ["run", "a.toml", "--plugin", "who.py", "--no-speed", "--no-report"]
    done = subprocess.run(
        [sys.executable, "-m", "kdbench.cli", *arguments, *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    records = (tmp_path / "results" / "a").glob("*.json")
    failed = [text for p in records if "loaded: " in (text := p.read_text())]
    assert len(failed) == 1
    assert f"loaded: {not options}" in failed[0]


def test_a_job_says_which_plugins_it_needs(tmp_path, helpers):
    host = Host(only=[])
    suite = helpers["suite"](host, strategies=["scratch"], pairs=["digits-mlp"])
    plan = make_plan(suite, host, {})
    jobs = make_jobs(plan, host, {"digits": 100}, tmp_path, None, "cpu", 60.0, 1)
    assert {job.plugin_names for job in jobs} == {frozenset()}
    again = Host(files=jobs[0].plugin_files, only=jobs[0].plugin_names)
    assert again.names("strategies") == host.names("strategies")


# --- strict ---------------------------------------------------------------------------


@pytest.fixture
def deprecated(monkeypatch):
    """A hook that is on its way out."""

    def kdbench_old() -> None:
        """Was useful once."""

    gone = KdbenchDeprecationWarning("kdbench_old goes in 9.0")
    spec = hookspecs.hookspec(warn_on_impl=gone)(kdbench_old)
    monkeypatch.setattr(hookspecs, "kdbench_old", spec, raising=False)


OLD = GOOD + "\n@hookimpl\ndef kdbench_old():\n    pass\n"
OLD_NAME = (
    "import warnings\nfrom kdbench.api import KdbenchDeprecationWarning\n"
    'warnings.warn("name x goes in 9.0", KdbenchDeprecationWarning)\n' + GOOD
)
FAULTS = {
    "broken": ({"bad": BROKEN}, "plugin 'bad' of (unknown) is broken: ModuleNotFound"),
    "shadowed": ({"one": GOOD, "one_": GOOD}, "plugin 'one' of (unknown) is shadowed"),
    "deprecated hook": ({"old": OLD}, "plugin 'old' of (unknown): kdbench_old goes in"),
    "deprecated name": ({"old": OLD_NAME}, "name x goes in 9.0"),
    "clash": (
        {"one": GOOD.replace("NAME", "both"), "two": GOOD.replace("NAME", "both")},
        "strategy 'both' is offered by (unknown)",
    ),
}


@pytest.mark.filterwarnings("ignore::kdbench.api.KdbenchDeprecationWarning")
@pytest.mark.usefixtures("deprecated")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("how", ["option", "environment"])
def test_strict_starts_nothing_where_a_plugin_has_a_fault(
    kdbench, installed, monkeypatch, tmp_path, fault, how
):
    texts, says = FAULTS[fault]
    installed(good=GOOD, **texts)
    assert kdbench("show", "good")[0] == 0
    installed(good=GOOD, **texts)
    if how == "environment":
        monkeypatch.setenv("KDBENCH_STRICT", "1")
    strict = ("--strict",) if how == "option" else ()
    for command in (("run", "-s", "good"), ("plugins",)):
        code, _, err = kdbench(*command, *strict)
        assert code == 2
        assert "--strict accepts no fault of any plugin:\n" in err
        assert says in err
        assert "Traceback" not in err
    assert not (tmp_path / "results").exists()


def test_strict_is_content_with_plugins_in_order(kdbench, installed):
    installed(good=GOOD)
    assert kdbench("show", "good", "--strict")[0] == 0
    assert kdbench("plugins", "--strict")[0] == 0
    assert kdbench("plugins", "--strict", "--no-plugins")[0] == 0  # disabled: no fault


# --- kdbench plugins ------------------------------------------------------------------


@pytest.mark.usefixtures("deprecated")
def test_the_table_shows_what_each_offers_or_why_not(kdbench, installed):
    installed(good=GOOD + EVENT, bad=BROKEN, old=OLD, one=GOOD, one_=GOOD)
    code, out, _ = kdbench("plugins")
    assert code == 0
    rows = [line.rstrip().split(maxsplit=4) for line in out.splitlines()]
    said = {row[0]: (row[1], row[4]) for row in rows if len(row) > 4}
    assert said["good"] == ("ok", "run_started")
    assert said["bad"] == ("broken", "ModuleNotFoundError: No module named")
    words = " ".join(out.split())
    assert "strategies: good" in words
    assert "deprecated: kdbench_old goes in 9.0 (old_" in words
    assert "one shadowed (unknown) - (unknown) has a plugin of this name" in words
    assert "kdbench.controls ok kdbench" in words


KEYS = [
    "name",
    "distribution",
    "version",
    "path",
    "status",
    "error",
    "traceback",
    "hooks",
    "offers",
    "notes",
]
"""Promised: others may follow, none of these goes."""


@pytest.mark.usefixtures("deprecated")
def test_json_has_stable_keys_whatever_plugins_print(kdbench, installed):
    installed(good="print('hello')\n" + GOOD + EVENT, bad=BROKEN, old=OLD)
    code, out, err = kdbench("plugins", "--json")
    assert code == 0
    assert "hello" in err
    rows = {row["name"]: row for row in json.loads(out)}
    assert all(list(row)[: len(KEYS)] == KEYS for row in rows.values())
    assert rows["good"]["hooks"] == ["kdbench_run_started", "kdbench_strategies"]
    assert rows["good"]["offers"] == {"strategies": ["good"]}
    assert rows["bad"]["status"] == "broken"
    assert "import nothing_of_this_name" in rows["bad"]["traceback"]
    assert rows["old"]["notes"][0].startswith("kdbench_old goes in 9.0")


def test_a_traceback_is_shown_by_name(kdbench, installed, tmp_path):
    installed(good=GOOD, bad=BROKEN)
    code, out, _ = kdbench("plugins", "--traceback", "bad")
    assert code == 0
    assert out.startswith("Traceback (most recent call last):")
    assert out.endswith("ModuleNotFoundError: No module named 'nothing_of_this_name'\n")
    code, out, _ = kdbench("plugins", "--traceback", "good")
    assert (code, out) == (0, "plugin 'good' is not broken: ok\n")
    code, _, err = kdbench("plugins", "--traceback", "bat")
    assert code == 2
    assert "unknown plugin 'bat'; did you mean 'bad'" in err
    (tmp_path / "half.py").write_text(BROKEN)
    code, out, _ = kdbench("plugins", "--plugin", "half.py", "--traceback", "half")
    assert code == 0
    assert "half.py" in out
    code, out, _ = kdbench("plugins", "--no-plugins", "--traceback", "bad")
    assert out == "plugin 'bad' is not broken: disabled (left out by --no-plugins)\n"


def test_versions_are_those_of_the_distributions(kdbench):
    _, out, _ = kdbench("plugins", "--json")
    for row in json.loads(out):
        assert row["version"] == metadata.version(row["distribution"])


def test_debug_shows_where_a_file_fails(monkeypatch, tmp_path, capsys):
    path = tmp_path / "half.py"
    path.write_text(BROKEN)
    monkeypatch.setattr(
        sys, "argv", ["kdbench", "list", "--plugin", str(path), "--debug"]
    )
    with pytest.raises(Exception, match="cannot be used") as caught:
        main()
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
