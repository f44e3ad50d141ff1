"""The decoded cache: made once, mapped, safe with two at once, remade if broken."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kdbench.api import UserError
from kdbench.data import decoded as module
from kdbench.data.decoded import decoded
from kdbench.data.images import Form
from kdbench.data.torchvision_files import find_cifar10

FORM = Form(shape=(3, 32, 32))


@pytest.fixture
def found(write, tmp_path):
    return find_cifar10(write["pickles"](tmp_path / "data"))


@pytest.fixture
def builds(monkeypatch):
    """The folders that were built, in order."""
    made = []
    build = module._build

    def counted(folder, *rest):
        made.append(folder)
        build(folder, *rest)

    monkeypatch.setattr(module, "_build", counted)
    return made


def test_the_second_opening_decodes_nothing(found, builds, write):
    first, second = decoded(found, FORM), decoded(found, FORM)
    assert len(builds) == 1
    images, labels = write["pictures"]("train")
    for opened in (first, second):
        assert isinstance(opened.splits["train"].pixels, np.memmap)
        assert np.array_equal(opened.splits["train"].pixels, images)
        assert np.array_equal(opened.splits["train"].labels["label"], labels)


def test_mean_and_std_are_of_the_training_pixels(found, write):
    opened = decoded(found, FORM)
    images = write["pictures"]("train")[0].astype(np.float64)
    assert opened.mean == pytest.approx(images.mean((0, 2, 3)))
    assert opened.std == pytest.approx(images.std((0, 2, 3)))


def test_writing_to_the_tensor_leaves_the_cache_alone(write, read, tmp_path):
    folder = write["pickles"](tmp_path)
    read(folder).train.inputs.zero_()
    again = read(folder)
    assert again.train.inputs.any()
    assert again.notes == ()  # not made again either


def test_a_changed_file_and_another_form_are_decoded_anew(found, builds):
    decoded(found, FORM)
    file = found.files[0]
    facts = file.stat()
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    decoded(found, FORM)
    assert len(set(builds)) == 1  # its contents are what they were
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    decoded(found, FORM)
    assert len(set(builds)) == 2
    other = Form(shape=(3, 32, 32), converted=True)
    decoded(found, other)
    assert len(set(builds)) == 3


def test_a_copy_with_its_times_is_the_same_set(found, builds, tmp_path):
    decoded(found, FORM)
    copy = shutil.copytree(found.root, tmp_path / "copy")
    decoded(find_cifar10(copy), FORM)
    assert len(builds) == 1


def cut(folder):
    path = folder / "train.npy"
    path.write_bytes(path.read_bytes()[:-1])


def flip(name, at):
    def spoil(folder):
        data = bytearray((folder / name).read_bytes())
        data[at] ^= 1
        (folder / name).write_bytes(bytes(data))

    return spoil


DAMAGES = {
    "cut": cut,
    "header": flip("test.npy", 20),
    "first pixel": flip("train.npy", 128),
    "a pixel": flip("train.npy", 3000),
    "last pixel": flip("test.npy", -1),
    "label": flip("train-labels.npy", -8),
    "no labels": lambda folder: (folder / "test-labels.npy").unlink(),
    "no pixels": lambda folder: (folder / "test.npy").unlink(),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "manifest": lambda folder: (folder / "manifest.json").write_text('{"format": 1'),
    "empty": lambda folder: (folder / "manifest.json").write_text("{}"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_cache_is_made_again_and_told(found, builds, write, kind):
    before = decoded(found, FORM)
    assert before.notes == ()
    DAMAGES[kind](builds[0])
    opened = decoded(found, FORM)
    assert len(builds) == 2
    assert np.array_equal(opened.splits["test"].pixels, write["pictures"]("test")[0])
    [note] = opened.notes
    assert str(builds[0]) in note
    assert "damaged" in note
    assert decoded(found, FORM).notes == ()
    assert len(builds) == 2


def test_a_large_set_is_checked_by_samples(found, builds, monkeypatch):
    """A flipped bit at the end of its file is seen, one between the samples is not."""
    monkeypatch.setattr("kdbench.data.decoded.WHOLE_BYTES", 0)
    monkeypatch.setattr("kdbench.data.decoded.SAMPLE_BYTES", 16)
    decoded(found, FORM)
    flip("train.npy", 200)(builds[0])
    assert decoded(found, FORM).notes == ()
    flip("train.npy", -1)(builds[0])
    assert "damaged" in decoded(found, FORM).notes[0]


def test_what_breaks_off_leaves_nothing(found, cache, monkeypatch):
    def broken(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_describe", broken)
        with pytest.raises(KeyboardInterrupt):
            decoded(found, FORM)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    assert len(decoded(found, FORM).splits["test"].pixels) == 10


def test_the_rest_of_a_killed_process_is_cleared(found, cache):
    folder = cache / module.fingerprint(found, FORM)
    stale = folder.with_suffix(".part")
    stale.mkdir(parents=True)
    (stale / "train.npy").write_bytes(b"half")
    assert decoded(found, FORM).notes == ()
    assert not stale.exists()


BUILD = """
import sys
from pathlib import Path
from kdbench.data import decoded as module
from kdbench.data.images import Form
from kdbench.data.torchvision_files import find_cifar10
made = []
build = module._build
def counted(*given):
    made.append(1)
    build(*given)
module._build = counted
print("ready", flush=True)
sys.stdin.readline()
opened = module.decoded(find_cifar10(Path(sys.argv[1])), Form(shape=(3, 32, 32)))
print(len(made), int(opened.splits["train"].pixels.sum()))
"""


def test_two_processes_at_once_build_it_once(found, write):
    command = [sys.executable, "-c", BUILD, str(found.root)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate()[0].split() for process in both]
    assert sorted(made for made, _ in answers) == ["0", "1"]
    expected = int(write["pictures"]("train")[0].sum())
    assert {int(total) for _, total in answers} == {expected}


def test_a_full_disk_is_told_before_anything_is_decoded(found, cache, monkeypatch):
    usage = SimpleNamespace(free=1000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match=r"(?s)0\.0 GB are free.*KDBENCH_CACHE"):
        decoded(found, FORM)
    assert not list(cache.glob("*[!k]/"))


def test_a_cache_folder_that_is_a_file_is_told(found, monkeypatch, tmp_path):
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "taken"))
    with pytest.raises(UserError, match=r"(?s)cannot be kept in.*KDBENCH_CACHE"):
        decoded(found, FORM)


def test_a_set_larger_than_memory_is_mapped_read_only(
    write, read, tmp_path, monkeypatch, recwarn
):
    """Linux refuses to promise memory for what could be copied."""
    load = np.load

    def refusing(path, mmap_mode=None):
        if mmap_mode == "c":
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return load(path, mmap_mode=mmap_mode)

    monkeypatch.setattr(module.np, "load", refusing)
    data = read(write["pickles"](tmp_path))
    assert torch.equal(data.test.inputs, torch.from_numpy(write["pictures"]("test")[0]))
    assert not [w for w in recwarn if "writable" in str(w.message)]
