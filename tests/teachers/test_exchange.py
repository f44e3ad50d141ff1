"""`kdbench teacher`: listed, exported, and imported on another machine."""

from __future__ import annotations

import json

import pytest

from kdbench.store import load
from kdbench.teachers.store import store_folder
from kdbench.weights import read, write

QUICK = [
    "--no-speed",
    "--no-report",
    "--seeds",
    "1",
    "--epochs",
    "2",
    "-p",
    "digits-mlp",
    "-s",
    "scratch",
]
QUICK += ["--executor", "here"]
FOREIGN = ["--model", "mlp_bn_8_8", "--dataset", "digits", "--name", "mine"]

# --- kdbench's own --------------------------------------------------------------------


def test_an_empty_cache_is_said_to_be_empty(kdbench):
    done = kdbench("teacher", "list")
    assert done.code == 0
    assert "no teacher in" in done.out


def test_the_list_says_what_a_lab_asks(kdbench, teacher):
    done = kdbench("teacher", "list")
    for words in (
        teacher.id,
        "digits",
        "mlp_bn_256_128",
        f"Top-1 {teacher.measures['top1']:.2f}%",
        teacher.weights_sha256[:12],
        teacher.finished_at[:10],
        teacher.run.recipe.sentence(),
        str(store_folder()),
    ):
        assert words in done.out
    [row] = json.loads(kdbench("teacher", "list", "--json").out)
    assert row["id"] == teacher.id
    done = kdbench("teacher", "list", "--from", "results/digits")
    assert "results/digits/weights" in done.out


def test_a_damaged_file_is_left_out_of_the_list_and_named(kdbench, teacher):
    (store_folder() / "torn.safetensors").write_bytes(b"torn")
    done = kdbench("teacher", "list")
    assert teacher.id in done.out
    assert "torn.safetensors is not a safetensors file" in done.err


@pytest.mark.parametrize("source", ["cache", "folder"])
def test_exported_here_and_imported_on_another_machine(
    kdbench, teacher, monkeypatch, tmp_path, source
):
    extra = ["--from", "results/digits"] if source == "folder" else []
    done = kdbench("teacher", "export", "mlp_bn_256_128", "it.safetensors", *extra)
    assert done.code == 0, done.err
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "another_machine"))
    done = kdbench("teacher", "import", "it.safetensors")
    assert done.code == 0, done.err
    assert teacher.id in done.out
    assert teacher.run.recipe.sentence() in done.out
    assert "warning" not in done.out
    done = kdbench("run", *QUICK, "--out", "there")
    assert "taken from the cache" in done.out
    there = {r.id: r for r in load([tmp_path / "there" / "digits"]).records}
    assert there[teacher.id] == teacher


def test_an_import_names_the_suite_that_uses_it(kdbench, teacher, tmp_path, host):
    """Its recipe is that of the packaged suite, though nobody trained so long."""
    from kdbench.config import read_suite

    path = next(store_folder().glob("*.safetensors"))
    card, state = read(path)
    suite = read_suite(host.get("suites", "digits").thing.path)
    run = card.record.run.model_copy(
        update={"recipe": suite.recipe.of("mlp_bn_256_128")}
    )
    record = card.record.model_copy(update={"run": run, "id": run.id})
    file = tmp_path / "long.safetensors"
    write(file, state, card.model_copy(update={"record": record}))
    said = kdbench("teacher", "import", file).out
    assert "digits" in said.partition("such as the suite")[2].partition(":")[0]


def test_an_import_of_other_code_warns_and_says_what_can_be_done(
    kdbench, teacher, tmp_path
):
    card, state = read(next(store_folder().glob("*.safetensors")))
    code = {**card.record.run.code, "model mlp_bn_256_128": "another"}
    run = card.record.run.model_copy(update={"code": code})
    record = card.record.model_copy(update={"run": run, "id": run.id})
    file = tmp_path / "old.safetensors"
    write(file, state, card.model_copy(update={"record": record}))
    done = kdbench("teacher", "import", file)
    assert done.code == 0
    assert "other code of model mlp_bn_256_128" in done.out
    command = done.out.partition("as a checkpoint it can be used: kdbench ")[2]
    assert kdbench(*command.split()).code == 0


def test_the_other_weights_of_a_teacher_replace_it_only_by_force(
    kdbench, teacher, tmp_path
):
    path = next(store_folder().glob("*.safetensors"))
    kdbench("teacher", "export", teacher.id[:6], "first.safetensors")
    card, state = read(path)
    state["classifier.bias"] += 1
    from kdbench.weights import state_hash

    record = card.record.model_copy(update={"weights_sha256": state_hash(state)})
    write(path, state, card.model_copy(update={"record": record}))
    done = kdbench("teacher", "import", "first.safetensors")
    assert done.code == 2
    assert "has this teacher with other weights" in done.err
    assert kdbench("teacher", "import", "first.safetensors", "--force").code == 0
    assert read(path)[0].record == teacher


# --- checkpoints from elsewhere -------------------------------------------------------


def test_mistakes_with_kdbenchs_own_files(kdbench, teacher, tmp_path):
    export = ("teacher", "export")
    assert kdbench(*export, "digits/mlp_bn_256_128#0", "it.safetensors").code == 0
    again = kdbench(*export, teacher.id, "it.safetensors")
    assert "is there already" in again.err
    assert ".safetensors" in kdbench(*export, teacher.id, "it.pt").err
    unwritable = kdbench(*export, teacher.id, "it.safetensors/x.safetensors")
    assert "cannot be written" in unwritable.err
    content = bytearray((tmp_path / "it.safetensors").read_bytes())
    content[-2] ^= 0x40
    (tmp_path / "flipped.safetensors").write_bytes(content)
    damaged = kdbench("teacher", "import", "flipped.safetensors")
    assert damaged.code == 2
    assert "its weights have sha256" in damaged.err
    renamed = bytes(content).replace(b'\\"epochs\\":2', b'\\"epochs\\":3')
    assert renamed != content
    (tmp_path / "edited.safetensors").write_bytes(renamed)
    edited = kdbench("teacher", "import", "edited.safetensors")
    assert "is not the hash of its run" in edited.err
    assert "as a checkpoint from elsewhere" in edited.err


def test_a_student_is_no_teacher(kdbench, teacher, tmp_path):
    from kdbench.recording import weights_path
    from kdbench.weights import Trained, read_state

    folder = tmp_path / "results" / "digits"
    student = next(r for r in load([folder]).records if not r.run.is_teacher)
    state = read_state(weights_path(folder, student.id))
    write(tmp_path / "student.safetensors", state, Trained(record=student))
    done = kdbench("teacher", "import", "student.safetensors")
    assert done.code == 2
    assert "holds no teacher that finished, but a student" in done.err


def test_several_that_fit_are_all_named(kdbench, teacher):
    assert kdbench("run", *QUICK, "--epochs", "1", "--out", "b").code == 0
    done = kdbench("teacher", "export", "mlp_bn_256_128", "it.safetensors")
    assert done.code == 2
    assert "names 2 teachers" in done.err
    assert teacher.id in done.err


def test_one_teacher_of_two_sets_is_named_by_its_file(kdbench, teacher):
    [path] = store_folder().glob("*.safetensors")
    card, state = read(path)
    other = path.with_name(f"{teacher.id}-0123456789ab.safetensors")
    write(other, state, card.model_copy(update={"data": "0123456789ab"}))
    done = kdbench("teacher", "export", teacher.id, "out.safetensors")
    assert done.code == 2
    assert other.stem in done.err
    assert kdbench("teacher", "export", other.stem, "out.safetensors").code == 0
