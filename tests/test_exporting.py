"""`kdbench export`: what is written answers as the student does, or is not written."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
import typer
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from kdbench import export_cli
from kdbench.api import UserError
from kdbench.data.checks import loaded
from kdbench.exporting import export
from kdbench.exporting.proof import proven
from kdbench.exporting.runs import find, only_folder
from kdbench.exporting.student import finished, other_headline
from kdbench.forms import files
from kdbench.plugins_cli import loads_plugins
from kdbench.recording import weights_path
from kdbench.session import Session
from kdbench.store import load, write_record

KD = "digits-mlp/kd"
WRITTEN = {"README.md", "student.json"}


@pytest.fixture(scope="module")
def train(host, helpers, tmp_path_factory):
    """Train these cells for two epochs: the folder of their results."""

    def run(**changes):
        out = tmp_path_factory.mktemp("runs")
        suite = helpers["suite"](host, **changes)
        Session(host, suite, helpers["options"](out)).train()
        return out / "digits"

    return run


@pytest.fixture(scope="module")
def digits(train):
    return train(pairs=["digits-mlp"], strategies=["kd", "simkd"])


@pytest.fixture
def copied(digits, tmp_path):
    """The same results, to be spoiled."""
    return shutil.copytree(digits, tmp_path / "digits")


@pytest.fixture(scope="module")
def student(host, digits):
    return finished(find(digits, KD), host, digits, None, "cpu")


@pytest.fixture
def write(host, tmp_path):
    """Export a run of a folder: what stands in student.json, and where."""

    def run(folder, name, form, **more):
        out = tmp_path / "export"
        export(find(folder, name), host, folder, out, form, **more)
        return json.loads((out / "student.json").read_text()), out

    return run


def program(folder):
    [text] = re.findall(
        r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S
    )
    return text


def answers(folder, items):
    """What the page's program predicts, in a process of its own; and what it prints."""
    np.save(folder / "items.npy", items.numpy())
    given = "np.load('items.npy')"
    code = program(folder)
    if "import numpy as np" not in code:
        given, code = f"torch.from_numpy({given})", f"import numpy as np\n{code}"
    code += f"\nnp.save('found.npy', np.asarray(predict({given})))\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return torch.from_numpy(np.load(folder / "found.npy")), done.stdout


def test_items(host, name):
    data = loaded(host.dataset(name), None, False)
    return data.test.inputs, data.test.targets


test_items.__test__ = False


@pytest.mark.parametrize(
    "form",
    [
        "onnx",
        pytest.param("torch-export", marks=pytest.mark.slow),
        pytest.param("safetensors", marks=pytest.mark.slow),
    ],
)
def test_the_program_of_the_page_is_right_where_the_record_says_so(
    host, digits, write, form
):
    about, out = write(digits, KD, form)
    record = find(digits, KD)
    inputs, targets = test_items(host, "digits")
    outputs, printed = answers(out, inputs)
    right = (outputs.argmax(1) == targets).numpy()
    bits = np.frombuffer(base64.b64decode(record.correct), np.uint8)
    assert np.array_equal(right, np.unpackbits(bits, count=len(right)).astype(bool))
    zeros, _ = answers(out, torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
    assert printed == f"answer: {int(zeros.argmax())}\n"
    file = out / about["file"]["name"]
    assert {path.name for path in out.glob("*")} - WRITTEN - {file.name} == {
        "items.npy",
        "found.npy",
    }
    assert about["file"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert about["file"]["bytes"] == file.stat().st_size


def test_the_description_says_what_goes_in_and_comes_out(host, digits, write):
    about, out = write(digits, KD, "torch-export")
    record = find(digits, KD)
    data = loaded(host.dataset("digits"), None, False)
    given, answer = about["input"], about["output"]
    assert given["shape"] == ["batch", 1, 8, 8]
    assert (given["dtype"], given["layout"]) == (
        "uint8",
        "batch, channels, height, width",
    )
    assert given["range"] == [0, 255]
    assert given["range_of_test_items"] == [0, 240]
    assert (given["mean"], given["std"]) == (list(data.mean), list(data.std))
    [part] = answer["parts"]
    assert part["labels"] == list("0123456789")
    assert (part["first"], part["end"], part["what"]) == (0, 10, "logits")
    assert about["run"]["id"] == record.id
    assert about["run"]["strategy"] == "kd"
    assert about["measured"]["measures"]["top1"] == record.measures["top1"]
    proof = about["proof"]
    assert proof["value"] == pytest.approx(record.measures["top1"])
    assert proof["items"] == 450
    assert proof["difference"] < 1e-5
    assert f"Top-1 {record.measures['top1']:.2f}%, as recorded" in proof["sentence"]
    assert proof["sentence"] in (out / "README.md").read_text()


def test_the_files_themselves_say_which_run_they_are_of(digits, write):
    record = find(digits, KD)
    _, out = write(digits, KD, "onnx")
    model = onnx.load(out / "student.onnx")
    onnx.checker.check_model(model)
    head = {prop.key: prop.value for prop in model.metadata_props}
    assert head["kdbench_run"] == record.id
    assert json.loads(head["labels"]) == list("0123456789")
    assert not any(node.metadata_props for node in model.graph.node)  # local paths
    _, out = write(digits, KD, "safetensors", force=True)
    with safe_open(out / "student.safetensors", framework="pt") as file:
        assert file.metadata()["kdbench_run"] == record.id
    _, out = write(digits, KD, "torch-export", force=True)
    extra = {files.HEADER: ""}
    program = torch.export.load(out / "student.pt2", extra_files=extra)
    assert json.loads(extra[files.HEADER])["kdbench_run"] == record.id
    assert not any("stack_trace" in node.meta for node in program.graph.nodes)


@pytest.mark.slow
def test_numbers_come_out_in_their_own_unit(host, train, write):
    folder = train(
        datasets=["diabetes"], pairs=["digits-mlp"], strategies=["scratch"], epochs=1
    )
    record = find(folder, "scratch")
    inputs, targets = test_items(host, "diabetes")
    about, out = write(folder, "scratch", "safetensors")
    assert about["output"]["mean"] == [pytest.approx(150, rel=0.1)]
    assert about["input"]["layout"] == "batch, numbers"
    assert len(about["input"]["mean"]) == 10
    outputs, printed = answers(out, inputs)
    wrong = (outputs - targets).square().mean().sqrt()
    assert float(wrong) == pytest.approx(record.measures["rmse"], rel=1e-4)
    assert re.fullmatch(r"answer: \[[-\d.]+\]\n", printed)
    about, out = write(folder, "scratch", "torch-export", force=True)
    network = torch.export.load(out / "student.pt2").module()
    torch.testing.assert_close(network(inputs), outputs, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("model", ["transformer_1x8", "textcnn_4", "bag_64"])
def test_texts_are_read_to_the_end_whatever_stands_in_the_example(
    host, tmp_path, model
):
    """Eager networks cut a batch to its longest text: a graph must not."""
    dataset = host.dataset("sst2")
    whole = files.Deployed(dataset.build(host.model(model))).eval()
    stream = torch.Generator().manual_seed(0)
    texts = torch.randint(1, 4096, (5, 64), generator=stream)
    for row, length in enumerate((3, 64, 10, 1, 30)):
        texts[row, length:] = 0
    form, path = files.FORMS["torch-export"], tmp_path / "it.pt2"
    form.write(whole, texts[[0, 2]], path, {})
    ask = form.read(path, lambda: whole)
    with torch.no_grad():
        for batch in (texts, texts[:1], texts[1:2]):
            torch.testing.assert_close(ask(batch), whole(batch))


@pytest.mark.slow
def test_several_heads_are_told_apart(host, train, write):
    folder = train(
        datasets=["digits_and_ink"], pairs=["digits-mlp"], strategies=["scratch"]
    )
    record = find(folder, "scratch")
    inputs, targets = test_items(host, "digits_and_ink")
    about, out = write(folder, "scratch", "onnx")
    digit, ink = about["output"]["parts"]
    assert (digit["name"], digit["first"], digit["end"]) == ("digit", 0, 10)
    assert digit["labels"] == list("0123456789")
    assert (ink["first"], ink["end"], ink["unit"]) == (10, 11, "grey levels")
    outputs, printed = answers(out, inputs)
    top1 = 100 * (outputs[:, :10].argmax(1) == targets[:, 0]).double().mean()
    assert float(top1) == pytest.approx(record.measures["top1_digit"])
    wrong = (outputs[:, 10] - targets[:, 1]).square().mean().sqrt()
    assert float(wrong) == pytest.approx(record.measures["rmse_ink"], rel=1e-4)
    assert [line.split(":")[0] for line in printed.splitlines()] == ["digit", "ink"]


def test_what_a_strategy_deploys_beyond_its_model(digits, write, tmp_path):
    """simkd ships the teacher's classifier, which bare weights cannot say."""
    with pytest.raises(UserError, match="its strategy deploys another one"):
        write(digits, "simkd", "safetensors")
    assert list(tmp_path.iterdir()) == []
    about, _ = write(digits, "simkd", "torch-export")
    assert about["proof"]["items"] == 450


@pytest.mark.slow
def test_of_maps_too_it_takes_batches_of_any_size(host, train, write):
    folder = train(pairs=["digits-conv"], strategies=["simkd"], epochs=1)
    _, out = write(folder, "simkd", "onnx")
    inputs, _ = test_items(host, "digits")
    outputs, _ = answers(out, inputs[:7])
    assert outputs.shape == (7, 10)


@pytest.mark.slow
def test_a_pruned_student_is_written_as_narrow_as_it_is(train, write):
    folder = train(pairs=["mlp-pruned-75"], strategies=["kd"], epochs=1)
    _, out = write(folder, "kd", "safetensors")
    state = load_file(out / "student.safetensors")
    assert max(len(v) for v in state.values() if v.dim() == 2) == 64  # of 256
    outputs, _ = answers(out, torch.zeros(3, 1, 8, 8, dtype=torch.uint8))
    assert outputs.shape == (3, 10)
    write(folder, "kd", "onnx", force=True)


@pytest.mark.slow
def test_a_student_with_int8_kernels_has_no_graph(train, write, tmp_path):
    folder = train(pairs=["conv-6-int8"], strategies=["kd"], epochs=1)
    for form in ("onnx", "torch-export"):
        with pytest.raises(UserError, match=r"(?s)cannot (export|trace).*safetensors"):
            write(folder, "digits/conv-6-int8/kd", form)
        assert list(tmp_path.iterdir()) == []
    _, out = write(folder, "digits/conv-6-int8/kd", "safetensors")
    types = {v.dtype for v in load_file(out / "student.safetensors").values()}
    assert torch.int8 in types


@pytest.mark.slow
def test_a_compressed_student_is_rebuilt_by_the_page(host, train, write):
    folder = train(pairs=["digits-mlp"], strategies=["kd/int8_weights"], epochs=1)
    about, out = write(folder, "kd/int8_weights", "safetensors")
    assert 'compressed("mlp_bn_8_8", "int8_weights")' in program(out)
    inputs, targets = test_items(host, "digits")
    outputs, _ = answers(out, inputs)
    top1 = 100 * (outputs.argmax(1) == targets).double().mean()
    assert float(top1) == pytest.approx(about["measured"]["measures"]["top1"], abs=0.23)
    for form in ("safetensors", "torch-export"):  # its weights are torchao's
        about, out = write(folder, "kd/int8_weights", form, force=True)
        assert about["needs"][-1] == "torchao"
    assert "pip install torch torchao\n" in (out / "README.md").read_text()
    about, _ = write(folder, "kd/int8_weights", "onnx", force=True)
    assert about["needs"] == ["numpy", "onnxruntime"]


@pytest.mark.slow
def test_what_was_fitted_is_no_graph(host, train, write, tmp_path):
    folder = train(pairs=["conv-tree"], strategies=["scratch"], epochs=1)
    for form in ("onnx", "torch-export"):
        with pytest.raises(
            UserError, match="decision_tree was fitted without gradients"
        ):
            write(folder, "scratch", form)
        assert list(tmp_path.iterdir()) == []
    _, out = write(folder, "scratch", "safetensors")
    assert "pip install kdbench kdbench-sklearn" in (out / "README.md").read_text()
    inputs, targets = test_items(host, "digits")
    outputs, _ = answers(out, inputs)
    top1 = 100 * (outputs.argmax(1) == targets).double().mean()
    assert float(top1) == pytest.approx(find(folder, "scratch").measures["top1"])


# --- which run ------------------------------------------------------------------------


def test_runs_are_found_by_any_of_their_names(digits):
    record = find(digits, KD)
    for name in (record.id, record.id[:6], f"digits/{KD}", f"digits/{KD}#0"):
        assert find(digits, name) == record
    teacher = find(digits, "mlp_bn_256_128")
    assert teacher.run.is_teacher
    assert find(digits, "digits/mlp_bn_256_128#0") == teacher


def test_an_older_run_of_the_same_cell_is_found_by_its_id(copied):
    record = find(copied, KD)
    run = record.run.model_copy(update={"code": {"strategy": "another"}})
    older = record.model_copy(
        update={"id": run.id, "run": run, "finished_at": "2000-01-01T00:00:00+00:00"}
    )
    write_record(copied, older)
    assert find(copied, KD) == record
    assert find(copied, run.id[:8]) == older


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("kdd", "unknown run 'kdd'.*did you mean 'kd'"),
        ("digits-mpl/kd", "did you mean 'digits-mlp/kd'"),
        ("kd", r"'kd' names 2 runs.*digits/digits-mlp/kd#0\).*whole name"),
    ],
)
def test_a_name_of_no_run_or_of_several(copied, name, words):
    record = find(copied, KD)
    run = record.run.model_copy(update={"seed": 1})
    write_record(copied, record.model_copy(update={"id": run.id, "run": run}))
    with pytest.raises(UserError, match=words):
        find(copied, name)
    assert find(copied, "kd#1").run == run


def test_the_only_folder_is_taken(digits, tmp_path):
    with pytest.raises(UserError, match="no folder of results"):
        only_folder(tmp_path)
    (tmp_path / "report").mkdir()
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "x.json").write_text("{}")
    assert only_folder(tmp_path) == tmp_path / "one"
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "x.json").write_text("{}")
    with pytest.raises(UserError, match=r"give --from: .*one, .*two"):
        only_folder(tmp_path)


# --- what cannot be written -----------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words"), [("failed", "failed"), ("skipped", "was skipped")]
)
def test_a_run_that_did_not_finish(copied, write, status, words):
    record = find(copied, KD)
    write_record(copied, record.model_copy(update={"status": status, "reason": "why"}))
    with pytest.raises(UserError, match=f"{words}, there is nothing to export: why"):
        write(copied, KD, "onnx")


def test_weights_that_are_gone_or_others(copied, write, tmp_path):
    path = weights_path(copied, find(copied, KD).id)
    state = load_file(path)
    state["classifier.bias"] += 1e-3
    save_file(state, path)
    with pytest.raises(UserError, match="other weights than the record"):
        write(copied, KD, "safetensors")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="damaged"):
        write(copied, KD, "safetensors")
    path.unlink()
    with pytest.raises(
        UserError, match=r"weights of kd are not at .*run the suite again"
    ):
        write(copied, KD, "safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["digits"]


def test_a_format_that_is_unknown_or_cannot_be_had(digits, write, monkeypatch):
    with pytest.raises(UserError, match="unknown format 'onx'; did you mean 'onnx'"):
        write(digits, KD, "onx")
    without = dataclasses.replace(files.FORMS["onnx"], missing=lambda: "no onnx here")
    monkeypatch.setitem(files.FORMS, "onnx", without)
    with pytest.raises(UserError, match="no onnx here; or take another --format"):
        write(digits, KD, "onnx")


def test_only_an_export_is_replaced_and_only_when_told(digits, write, tmp_path):
    out = tmp_path / "export"
    out.mkdir()
    (out / "README.md").write_text("mine")
    for force in (False, True):
        with pytest.raises(UserError, match="other things than an export"):
            write(digits, KD, "safetensors", force=force)
    assert (out / "README.md").read_text() == "mine"
    (out / "README.md").unlink()
    write(digits, KD, "safetensors")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="an export already; replace it with --force"):
        write(digits, KD, "torch-export")
    assert (out / "student.safetensors").is_file()
    write(digits, KD, "torch-export", force=True)
    there = {path.name for path in out.iterdir()}
    assert there == WRITTEN | {"student.pt2", "notes.txt"}
    shutil.rmtree(out)
    out.write_text("a file")
    with pytest.raises(UserError, match="is a file; give a folder"):
        write(digits, KD, "safetensors")


def test_a_replacement_that_stops_half_way_leaves_what_was_there(
    digits, write, tmp_path, monkeypatch
):
    about, out = write(digits, KD, "safetensors")
    moved = []

    def move(source, place):
        moved.append(place.name)
        if place.name == "student.json":
            raise OSError("no space left")
        return real(source, place)

    real = shutil.move
    monkeypatch.setattr(shutil, "move", move)
    with pytest.raises(UserError, match="cannot be written"):
        write(digits, KD, "torch-export", force=True)
    assert moved == ["student.pt2", "README.md", "student.json"]
    assert json.loads((out / "student.json").read_text()) == about
    weights = (out / about["file"]["name"]).read_bytes()
    assert hashlib.sha256(weights).hexdigest() == about["file"]["sha256"]


def test_a_folder_that_cannot_be_written(host, digits, tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "export"
    with pytest.raises(UserError, match="cannot be written"):
        export(find(digits, KD), host, digits, out, "safetensors")


# --- the proof ------------------------------------------------------------------------


def test_a_wrong_export_is_caught_and_removed(digits, write, monkeypatch, tmp_path):
    form = files.FORMS["torch-export"]

    def without_preprocessing(whole, example, path, about):
        form.write(files.Deployed(whole.network), example.float(), path, about)

    wrong = dataclasses.replace(
        form,
        write=without_preprocessing,
        read=lambda path, fresh: lambda x: form.read(path, fresh)(x.float()),
    )
    monkeypatch.setitem(files.FORMS, "torch-export", wrong)
    with pytest.raises(UserError, match=r"(?s)other outputs.*0001 is allowed|1e-04"):
        write(digits, KD, "torch-export")
    assert list(tmp_path.iterdir()) == []


def test_a_graph_for_one_size_of_batch_is_caught(digits, write, monkeypatch, tmp_path):
    form = files.FORMS["torch-export"]

    def of_all_test_items(whole, example, path, about):
        batch = example[:1].expand(450, -1, -1, -1)
        torch.export.save(torch.export.export(whole, (batch,)), path)

    wrong = dataclasses.replace(form, write=of_all_test_items)
    monkeypatch.setitem(files.FORMS, "torch-export", wrong)
    with pytest.raises(
        UserError, match=r"cannot be exported as torch-export: .*(==|to) 450"
    ):
        write(digits, KD, "torch-export")
    assert list(tmp_path.iterdir()) == []


def test_the_proof_allows_rounding_and_nothing_more(student):
    form = files.FORMS["torch-export"]
    truth = student.whole(student.network)
    largest = student.answers.abs().max()

    def ask(change):
        def answer(items):
            with torch.no_grad():
                return change(truth(items))

        return answer

    proof = proven(student, form, ask(lambda x: x + 5e-5 * largest))
    assert proof.difference == pytest.approx(5e-5, rel=0.01)
    assert proof.other_classes == 0
    wrong = {
        "off by up to": lambda x: x + 2e-4 * largest,
        "nan": lambda x: x * torch.nan,
        "shape": lambda x: x[:, :9],
    }
    for words, change in wrong.items():
        with pytest.raises(UserError, match=words):
            proven(student, form, ask(change))


def test_ties_may_be_told_apart_otherwise_and_are_counted(student):
    """The second of two largest outputs, a rounding below the first, becomes it."""
    rows = student.answers.clone()
    best = rows.argmax(1)
    other = (best + 1) % 10
    lot = torch.arange(3)
    gap = 1e-5 * rows.abs().max()
    rows[lot, other[lot]] = rows[lot, best[lot]] - gap
    tied = dataclasses.replace(student, answers=rows)
    swapped = rows.clone()
    swapped[lot, other[lot]] += 2 * gap
    queue = [swapped[:1], swapped]
    form = files.FORMS["torch-export"]
    proof = proven(tied, form, lambda items: queue.pop(0))
    assert proof.other_classes == 3
    assert "the same class but for 3 ties" in proof.sentence()


def test_one_item_of_the_headline_may_differ(student):
    def recorded(items_more):
        top1 = student.record.measures["top1"] + 100 * items_more / 450
        measures = {**student.record.measures, "top1": top1}
        record = student.record.model_copy(update={"measures": measures})
        return dataclasses.replace(student, record=record)

    decided = student.answers + F.one_hot(student.answers.argmax(1), 10)  # no ties
    student = dataclasses.replace(student, answers=decided)
    for items in (0, 1, -1):
        one = recorded(items)
        assert other_headline(one, one.answers) is None
    for items in (2, -2):
        one = recorded(items)
        assert "when it was recorded" in (other_headline(one, one.answers) or "")


def test_a_student_that_measures_otherwise_here_is_not_written(copied, write, tmp_path):
    record = find(copied, KD)
    measures = {**record.measures, "top1": record.measures["top1"] + 5}
    claimed = {"measures": measures, "correct": None}
    write_record(copied, record.model_copy(update=claimed))
    with pytest.raises(
        UserError, match="preprocessing or the model's code must be other"
    ):
        write(copied, KD, "safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["digits"]


# --- the command ----------------------------------------------------------------------


def test_the_command_writes_beside_the_results_and_says_its_proof(
    copied, tmp_path, monkeypatch
):
    (tmp_path / "results").mkdir()
    shutil.move(copied, tmp_path / "results" / "digits")
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    loads_plugins(app)(export_cli.export)
    done = CliRunner().invoke(app, ["mlp_bn_256_128", "-f", "safetensors"])
    assert done.exit_code == 0, done.output
    [record] = [
        r
        for r in load([tmp_path / "results" / "digits"]).records
        if r.run.students == ("mlp_bn_256_128",)
    ]
    place = tmp_path / "results" / "digits" / "export" / f"{record.id}-safetensors"
    assert (place / "student.safetensors").is_file()
    top1 = f"Top-1 {record.measures['top1']:.2f}%, as recorded"
    assert "gives the student's answers to all 450 test items of digits" in done.output
    assert top1 in done.output
    assert "a teacher trained on digits" in (place / "README.md").read_text()
