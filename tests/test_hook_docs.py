"""docs/hooks: every hook has a page, and every example there does what it is for."""

from __future__ import annotations

import ast
import csv
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import kdbench_feature_matching
import pytest
import torch
from safetensors.torch import load_file

from kdbench import hookspecs
from kdbench.api import Finished, UserError
from kdbench.config import Suite, read_suite
from kdbench.conformance.examination import examine
from kdbench.conformance.targets import find
from kdbench.conformance.toys import Toys
from kdbench.conformance.trainings import subject_of
from kdbench.plan import make_plan
from kdbench.plugins import Host
from kdbench.recording import weights_path
from kdbench.records import Record
from kdbench.report import write
from kdbench.session import Session
from kdbench.store import load
from kdbench.tasks import Task

DOCS = Path(__file__).parents[1] / "docs"
HOOKS = {
    node.name: node
    for node in ast.parse(Path(hookspecs.__file__).read_text()).body
    if isinstance(node, ast.FunctionDef)
}
PAGES = sorted((DOCS / "hooks").glob("*.md"))
OF_HOOKS = [page for page in PAGES if page.stem != "README"]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)
NAMED = re.compile(r"^`([\w.]+)`[^`]*?\n\n```(?:python|toml)\n(.*?)^```$", re.S | re.M)
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
COMMAND = re.compile(r"^\$ (.*?[^\\])$", re.S | re.M)
MODULES = [
    text
    for kind, text in FENCED.findall((DOCS / "plugins.md").read_text())
    if kind == "python" and "@hookimpl" in text
]


def files_of(page: Path) -> dict[str, str]:
    """The files that a page shows, by name."""
    return dict(NAMED.findall(page.read_text(encoding="utf-8")))


def name_of(page: Path) -> str:
    return page.stem


# --- the pages ------------------------------------------------------------------------


def test_every_hook_has_a_page_and_every_page_a_hook():
    assert {page.stem for page in OF_HOOKS} == set(HOOKS)
    assert len(HOOKS) == 12


def test_the_index_names_every_page_once():
    index = (DOCS / "hooks" / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| \[(\w+)\]\((\w+)\.md\) \|", index, re.M)
    assert sorted(named) == [(hook, hook) for hook in sorted(HOOKS)]


@pytest.mark.parametrize("page", OF_HOOKS, ids=name_of)
def test_the_signature_is_that_of_the_hook(page):
    spec = HOOKS[page.stem]
    text = page.read_text(encoding="utf-8")
    kind, shown = FENCED.search(text).groups()
    arguments, returned = ast.unparse(spec.args), ast.unparse(spec.returns)
    assert shown == f"def {spec.name}({arguments}) -> {returned}\n"
    for words in ("When it is called", "What it returns", "What happens if it fails"):
        assert f"\n**{words}.** " in text
    assert text.startswith(f"# {spec.name}\n")
    assert kind == "python"
    assert "\n## Example\n" in text
    assert "\n## Pitfalls\n" in text


@pytest.mark.parametrize("page", [*PAGES, DOCS / "plugins.md"], ids=name_of)
def test_links_resolve(page):
    links = LINK.findall(FENCED.sub("", page.read_text(encoding="utf-8")))
    missing = [x for x in links if "://" not in x and not (page.parent / x).exists()]
    assert missing == []


# --- the examples ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files of all pages in one folder, and a folder of tables."""
    folder = tmp_path_factory.mktemp("examples")
    for page in OF_HOOKS:
        for name, text in files_of(page).items():
            assert not (folder / name).exists(), f"{name} is on two pages"
            (folder / name).write_text(text, encoding="utf-8")
    stream = torch.Generator().manual_seed(0)
    (folder / "tables").mkdir()
    for part, rows in (("train", 96), ("test", 32)):
        labels = torch.arange(rows) % 3
        numbers = torch.randn(rows, 5, generator=stream) + labels[:, None]
        with (folder / "tables" / f"{part}.csv").open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(["a", "b", "c", "d", "e", "class"])
            for row, label in zip(numbers.tolist(), labels.tolist(), strict=True):
                lines.writerow([*row, label])
    return folder


@pytest.fixture(scope="module")
def host(examples: Path) -> Host:
    """All examples at once, beside the toys and fitnet."""
    files = [
        examples / name
        for page in OF_HOOKS
        for name, text in files_of(page).items()
        if "@hookimpl" in text
    ]
    return Host(files=files, found=[], modules=[Toys(), kdbench_feature_matching])


@pytest.fixture(scope="module")
def trained(host, helpers, examples) -> dict[str, Record]:
    """One session that takes the examples, in their folder: records by pair and label.

    Its data are the table, its pairs and models, strategy, compression and executor
    those of the pages, and it tells the events.
    """
    suite = Suite(
        name="taken",
        datasets=("csv:tables",),
        pairs=("residual", "gap-1"),
        strategies=("scratch", "jsd", "jsd/sparse_half", "fitnet"),
        seeds=1,
        recipe={"epochs": 2, "batch_size": 32, "lr": 0.02},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(examples)
        options = helpers["options"](Path("results"), executor="pausable")
        session = Session(host, suite, options)
        session.train()
    assert session.failed == []
    records = load([examples / "results/taken"]).records
    return {f"{r.run.pair} {r.run.label}": r for r in records}


def example(host: Host, name: str):
    """The module of an example."""
    [path] = [p.path for p in host.plugins if p.name == name]
    return sys.modules[f"kdbench_file_{Path(path).stem}"]


@pytest.mark.parametrize("page", OF_HOOKS, ids=name_of)
def test_an_example_loads_and_has_its_hook(page, host):
    names = [Path(n).stem for n, t in files_of(page).items() if "@hookimpl" in t]
    [plugin] = [plugin for plugin in host.plugins if plugin.name in names]
    assert (plugin.status, plugin.error, plugin.meddled) == ("ok", None, [])
    assert page.stem in plugin.hooks


def test_the_strategy_learns(host, trained):
    for pair in ("residual", "gap-1"):
        record = trained[f"{pair} jsd"]
        assert record.status == "finished"
        assert len(record.curves["loss/jsd"]) == 2
        assert record.curves["loss/jsd"][1] < record.curves["loss/jsd"][0]


def test_the_strategy_is_the_divergence_it_says(host):
    given = torch.Generator().manual_seed(0)
    logits = [torch.randn(3, 4, generator=given, dtype=torch.float64) for _ in range(2)]
    p, q = (x.div(2.0).softmax(1) for x in logits)
    middle = (p + q) / 2
    halves = [(x * (x / middle).log()).sum() / 2 / 3 for x in (p, q)]

    class Side:
        def __init__(self, logits):
            self.logits = logits

    class Given:
        student, teacher = Side(logits[0]), Side(logits[1])
        targets = torch.tensor([0, 1, 2])

    strategy = host.strategy("jsd")(temperature=2.0, jsd_weight=1.0)
    assert float(strategy.loss(Given())["jsd"]) == pytest.approx(4 * float(sum(halves)))


@pytest.mark.slow
def test_the_strategy_passes_the_conformance_kit(examples):
    examination = examine(find(str(examples / "jsd.py")))
    said = [str(x) for result in examination.results for x in result.failures]
    assert said == []


def test_the_model_is_trained_and_tapped(host, trained):
    assert trained["residual fitnet"].status == "finished"
    assert trained["residual fitnet"].run.students == ("residual_mlp_8",)
    assert trained["residual fitnet"].run.teachers == ("residual_mlp_64",)
    assert trained["residual fitnet"].measures["macs"] > 0


def test_every_pair_of_the_page_can_be_planned(host):
    pairs = tuple(pair for pair in host.names("pairs") if pair.startswith("gap-"))
    suite = Suite(
        name="gap", datasets=("digits",), pairs=pairs, strategies=("scratch",)
    )
    plan = make_plan(suite, host, {})
    assert len(pairs) == 4
    assert plan.skipped == ()
    taught = {r.pair: r.teachers for g in plan.todo for r in g.runs if not r.is_teacher}
    assert taught["gap-3"] == ("mlp_256_128",)


def test_the_dataset_is_that_of_the_tables(host, trained, examples, monkeypatch):
    monkeypatch.chdir(examples)
    dataset = host.dataset("csv:tables")
    data = dataset.load(None, False)
    assert (dataset.task.outputs, dataset.input_shape) == (3, (5,))
    assert data.train.inputs.shape == (96, 5)
    assert data.test.targets.tolist() == [k % 3 for k in range(32)]
    assert {r.run.dataset for r in trained.values()} == {"csv:tables"}
    again = Host(files=host.files, found=[]).dataset("csv:tables")
    with (examples / "tables" / "test.csv").open("a") as file:
        file.write("1,2,3,4,5,0\n")
    other = Host(files=host.files, found=[]).dataset("csv:tables")
    assert dataset.version == again.version != other.version


def test_a_table_that_is_not_there_is_bad_input(host):
    with pytest.raises(UserError, match=r"could not find it \(FileNotFoundError"):
        host.dataset("csv:nowhere")


def test_the_suite_plans(host):
    whole = Host(files=host.files)
    suite = read_suite(whole.get("suites", "low_label").thing.path)
    plan = make_plan(suite, whole, {})
    labels = {r.label for g in plan.todo for r in g.runs}
    assert {"scratch_few_labels", "confident_pseudo_label"} <= labels
    assert plan.skipped == ()


def answered(logits: list[float], label: int, **more: object) -> Finished:
    """One item, answered so."""
    return Finished(
        model=None,
        task=Task(outputs=len(logits)),
        device="cpu",
        sample=None,
        logits=torch.tensor([logits]),
        targets=torch.tensor([label]),
        teacher_logits=None,
        **more,
    )


def test_the_measure_computes(host, trained):
    assert 0 < trained["residual jsd"].measures["brier"] < 2
    brier = host.get("measures", "brier").thing.compute
    assert brier(answered([0.0, 99.0, 0.0, 0.0], 1)) == pytest.approx(0)
    even = brier(answered([0.0, 0.0, 0.0, 0.0], 1))
    assert even == pytest.approx(0.75**2 + 3 * 0.25**2)
    assert brier(answered([0.0, 0.0, 99.0, 0.0], 1)) == pytest.approx(2)
    assert brier(answered([0.0, 1.0], 1, probabilities=False)) is None


def test_the_compression_compresses(trained, examples):
    record = trained["residual jsd/sparse_half"]
    weights = load_file(weights_path(examples / "results/taken", record.id))
    matrices = [x for name, x in weights.items() if x.ndim == 2]
    assert len(matrices) == 6
    for matrix in matrices:
        assert int((matrix == 0).sum()) == matrix.numel() // 2
    before = trained["residual jsd"]
    assert record.run.source == before.id
    assert record.weights_sha256 != before.weights_sha256


def test_the_executor_pauses_and_goes_on(host, tmp_path, monkeypatch):
    module = example(host, "pausable")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pause").touch()
    waited = []

    def sleep(seconds):
        waited.append(seconds)
        if len(waited) == 3:
            (tmp_path / "pause").unlink()

    class Here:
        @staticmethod
        def start(jobs, workers, host, emit, stop):
            assert (jobs, workers, emit) == (["a job"], 2, print)
            assert stop() is False

    class Plugins:
        @staticmethod
        def get(kind, name):
            assert (kind, name) == ("executors", "here")
            return type("Offer", (), {"thing": Here})

    monkeypatch.setattr(module.time, "sleep", sleep)
    module.start(["a job"], 2, Plugins, print, lambda: False)
    assert waited == [module.POLL_S] * 3
    (tmp_path / "pause").touch()
    asked = iter([False, True, True])
    monkeypatch.setattr(Here, "start", lambda *given: waited.append(given[-1]()))
    module.start([], 1, Plugins, print, lambda: next(asked))
    assert waited[3:] == [module.POLL_S, True]  # a stop ends the pause


def test_the_renderer_renders(host, trained, examples, tmp_path):
    results = load([examples / "results/taken"])
    [file] = write(results, tmp_path, [host.get("renderers", "leaderboard").thing])
    rows = json.loads(file.read_text())
    assert file.name == "leaderboard.json"
    for pair in ("gap-1", "residual"):
        measured = {
            r.run.label: r.measures["top1"]
            for r in trained.values()
            if r.run.pair == pair and r.status == "finished"
        }
        found = [row for row in rows if row["pair"] == pair]
        assert {row["strategy"]: row["top1"] for row in found} == measured
        assert [row["top1"] for row in found] == sorted(measured.values())[::-1]
    assert trained["gap-1 fitnet"].status == "skipped"  # and so it has no row
    assert {row["pair"] for row in rows} == {"gap-1", "residual"}


def test_the_events_are_told(trained, examples):
    """Each of the three examples writes what happened into the working folder."""
    every = {record.id for record in trained.values()}
    skipped = {r.id for r in trained.values() if r.status == "skipped"}
    lines = (examples / "starts.jsonl").read_text().splitlines()
    assert {json.loads(line)["run"] for line in lines} == every - skipped
    assert len(lines) == len(every - skipped)
    with (examples / "curves.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    told = {
        key: [float(r["value"]) for r in rows if r["run"] == record.id]
        for key, record in trained.items()
    }
    for key, record in trained.items():
        trains = record.status == "finished" and not record.run.compression
        assert len(told[key]) == 2 * trains
        if trains:
            assert told[key] == pytest.approx(record.curves["top1"], rel=1e-5)
    journal = (examples / "journal.txt").read_text().splitlines()
    top1 = trained["residual jsd"].measures["top1"]
    assert len(journal) == len(trained)
    assert f"csv:tables residual jsd #0: finished, Top-1 {top1:.2f}%" in journal


# --- what the pages show --------------------------------------------------------------


def plain(line: str) -> str:
    """A line as far as it must be the same on every machine."""
    return " ".join(re.sub(r"[-+]?\d[\w.:+-]*|─+", "#", line).split())


@pytest.mark.slow
@pytest.mark.parametrize("page", OF_HOOKS, ids=name_of)
def test_commands_print_what_the_page_shows(page, tmp_path):
    """All but numbers: times and the last bits are another machine's."""
    for name, text in files_of(page).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    programs = Path(sys.executable).parent
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    consoles = [x for k, x in FENCED.findall(page.read_text()) if x.startswith("$ ")]
    assert consoles
    for console in consoles:
        commands = COMMAND.findall(console)
        shown = COMMAND.split(console)[2::2]
        for command, lines in zip(commands, shown, strict=True):
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=tmp_path,
                env={**os.environ, "PATH": path},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            printed = [plain(line) for line in done.stdout.splitlines()]
            for line in lines.strip("\n").splitlines():
                if line != "...":
                    assert plain(line) in printed


# --- docs/plugins.md ------------------------------------------------------------------


@pytest.mark.parametrize("place", range(len(MODULES)))
def test_a_module_in_the_guide_works(place, tmp_path):
    file = tmp_path / f"guide_{place}.py"
    file.write_text(MODULES[place], encoding="utf-8")
    host = Host(files=[file], found=[], modules=[Toys()])
    [plugin] = [plugin for plugin in host.plugins if plugin.name == file.stem]
    assert (plugin.status, plugin.meddled) == ("ok", [])
    for name in plugin.offers.get("strategies", ()):
        trial = subject_of(host, name).train(epochs=1)
        assert trial.failed is None
        assert math.isfinite(trial.record.measures["top1"])
    for name in plugin.offers.get("measures", ()):
        record = subject_of(host, "scratch").train(epochs=1).record
        assert 0 <= record.measures[name] <= 100
        compute = host.get("measures", name).thing.compute
        shares = [compute(answered([3.0, 2.0, 1.0], label)) for label in range(3)]
        assert (name, shares) == ("second_best", [0, 100, 0])
    assert set(plugin.offers) <= {"strategies", "measures"}


def test_the_guide_has_complete_modules():
    assert len(MODULES) >= 2
