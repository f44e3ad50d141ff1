"""A state in files: their sizes, what is written again, and what is refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import tarfile

import pytest

from kdbench.api import UserError
from kdbench.atomic import Unwritable
from kdbench.carrying.packing import Written, write
from kdbench.carrying.state import INDEX, check, read_index, unpack
from kdbench.carrying.taking import take

LIMIT = 60_000


def laid_out(folder, sizes, seed=0):
    """Files of random bytes by their paths in a state."""
    files = {}
    for path, size in sizes.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(random.Random(f"{path} {seed}").randbytes(size))  # noqa: S311
        files[path] = file
    return files


SIZES = {
    **{f"{k:012x}.json": 900 + k for k in range(20)},
    "speed-a_model_of_a_name_longer_than_tar_headers_hold" + 60 * "x" + ".json": 300,
    "weights/000000000000.safetensors": 25_000,
    "weights/000000000001.safetensors": 140_000,
    "imported/mine+1.safetensors": 9_000,
    "checkpoints/0000000000aa.ckpt": 200_000,
    "checkpoints/0000000000ab.ckpt": 10_000,
}


@pytest.fixture
def files(tmp_path):
    return laid_out(tmp_path / "here", SIZES)


@pytest.fixture
def state(tmp_path, files):
    """A state of several parts, and its index."""
    folder = tmp_path / "state"
    index, _ = write(folder, "digits", None, lambda: files, LIMIT)
    return folder, index


def parts(folder):
    return {p.name: p.stat() for p in folder.glob("part-*.tar")}


def contents(folder):
    found = {p.relative_to(folder): p for p in folder.rglob("*")}
    return {k: p.read_bytes() for k, p in found.items() if p.is_file()}


def test_every_file_is_below_the_limit_and_comes_out_as_it_went_in(
    state, files, tmp_path
):
    folder, _ = state
    sizes = [p.stat().st_size for p in folder.iterdir()]
    assert max(sizes) <= LIMIT
    assert len(sizes) < 2 * sum(SIZES.values()) / LIMIT + 3
    index = read_index(folder)
    check(folder, index, "digits")
    unpack(folder, index, tmp_path / "there")
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_parts_of_what_stays_the_same_are_not_written_again(state, files, tmp_path):
    folder, index = state
    before = parts(folder)
    checkpoint = files["checkpoints/0000000000aa.ckpt"]
    checkpoint.write_bytes(checkpoint.read_bytes()[::-1])
    files |= laid_out(tmp_path / "here", {"00000000abcd.json": 500})
    now, written = write(folder, "digits", index, lambda: files, LIMIT)
    after = parts(folder)
    same = {n for n in before if n in after and after[n].st_ino == before[n].st_ino}
    large = {p.file for p in index.parts if 2 * p.size >= LIMIT}
    lasting = {
        p.file
        for p in index.parts
        if not any(piece.path.startswith("checkpoints/") for piece in p.pieces)
    }
    assert len(large & lasting) >= 3
    assert large & lasting <= same
    assert written.new == len(after.keys() - before.keys()) + 1  # and the index
    assert {p.file for p in now.parts} == set(after)  # no old ones
    check(folder, now, "digits")
    unpack(folder, now, tmp_path / "there")
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_nothing_new_writes_nothing(state, files):
    folder, index = state
    before = {p.name: p.stat() for p in folder.iterdir()}
    again, written = write(folder, "digits", index, lambda: files, LIMIT)
    assert again == index
    assert (written.new, written.new_size) == (0, 0)
    after = {p.name: p.stat() for p in folder.iterdir()}
    assert {n: s.st_ino for n, s in after.items()} == {
        n: s.st_ino for n, s in before.items()
    }


def test_a_record_more_in_each_slice_is_no_part_more(state, files, tmp_path):
    folder, index = state
    before = len(index.parts)
    for slice_ in range(6):
        files.update(laid_out(tmp_path / "here", {f"{slice_}aaaaaaaaaaa.json": 500}))
        index, _ = write(folder, "digits", index, lambda: files, LIMIT)
    assert len(index.parts) <= before + 1


def test_a_damaged_part_is_written_anew(state, files):
    folder, index = state
    damage(folder, index.parts[0].file)
    write(folder, "digits", index, lambda: files, LIMIT)
    check(folder, read_index(folder), "digits")


@pytest.mark.parametrize("seed", range(3))
def test_state_after_state_stays_whole_and_in_few_files(tmp_path, seed):
    """Runs begin, go on and finish, slice after slice."""
    dice = random.Random(seed)  # noqa: S311
    here, folder = tmp_path / "here", tmp_path / "state"
    files, index = {}, None
    for turn in range(8):
        for path in [p for p in files if p.startswith("checkpoints/")]:
            files.pop(path).unlink()
        done = {f"{turn:06x}{k:06x}.json": dice.randint(1, 2_000) for k in range(3)}
        done[f"weights/{turn:012x}.safetensors"] = dice.randint(1, 90_000)
        begun = {f"checkpoints/a{k}.ckpt": dice.randint(1, 130_000) for k in range(2)}
        files |= laid_out(here, done | begun, seed=turn)
        known = dict(files)
        index, _ = write(folder, "digits", index, lambda known=known: known, LIMIT)
        sizes = [stat.st_size for stat in parts(folder).values()]
        assert max(sizes) <= LIMIT
        total = sum(p.stat().st_size for p in files.values())
        assert len(sizes) <= 2 * total / (LIMIT - 2 * tarfile.RECORDSIZE) + 6
        check(folder, index, "digits")
        shutil.rmtree(tmp_path / "there", ignore_errors=True)
        unpack(folder, index, tmp_path / "there")
        assert contents(tmp_path / "there") == contents(here)


# --- writing that fails, and files that change meanwhile ------------------------------


@pytest.mark.parametrize("at", ["part", INDEX])
def test_an_old_state_survives_a_write_that_fails(state, files, monkeypatch, at):
    folder, index = state
    before = contents(folder)
    for path in files.values():
        path.write_bytes(path.read_bytes()[::-1])
    from kdbench.carrying import packing

    real, calls = packing.write_whole, []

    def full(path, *content):
        calls.append(path.name)
        if path.name.startswith(at) and len(calls) > 2:
            raise Unwritable(28, "No space left on device", str(path))
        real(path, *content)

    monkeypatch.setattr(packing, "write_whole", full)
    with pytest.raises(Unwritable, match="No space left"):
        write(folder, "digits", index, lambda: files, LIMIT)
    assert len(calls) > 2
    assert contents(folder) == before


def test_an_interrupt_once_the_index_is_in_place_keeps_its_parts(
    state, files, monkeypatch
):
    folder, index = state
    for path in files.values():
        path.write_bytes(path.read_bytes()[::-1])

    def interrupted(folder):
        if read_index(folder) != index:
            raise KeyboardInterrupt

    monkeypatch.setattr("kdbench.atomic._sync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(folder, "digits", index, lambda: files, LIMIT)
    check(folder, read_index(folder), "digits")
    assert read_index(folder) != index


def test_a_first_write_that_is_cut_short_is_no_state_and_no_error(
    files, tmp_path, monkeypatch
):
    from kdbench.carrying import packing

    folder, real = tmp_path / "new", packing.write_whole

    def killed(path, *content):
        real(path, *content)
        if path.name.startswith("part-"):
            raise KeyboardInterrupt

    monkeypatch.setattr(packing, "write_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        write(folder, "digits", None, lambda: files, LIMIT)
    [left] = parts(folder)
    assert read_index(folder) is None
    monkeypatch.undo()
    index, _ = write(folder, "digits", None, lambda: dict([*files.items()][:3]), LIMIT)
    assert left not in parts(folder)
    check(folder, read_index(folder), "digits")
    (folder / INDEX).unlink()  # as by who forgot to copy it
    with pytest.raises(UserError, match=r"parts of a state: there is no state\.json"):
        read_index(folder)
    assert set(parts(folder)) == {p.file for p in index.parts}


def test_nothing_to_write_leaves_what_is_there(state, tmp_path):
    folder, index = state
    before = contents(folder)
    assert write(folder, "digits", index, dict, LIMIT)[0] == index
    assert contents(folder) == before
    write(tmp_path / "new", "digits", None, dict, LIMIT)
    assert not (tmp_path / "new").exists()


def test_what_killed_commands_left_is_cleared(state, files):
    folder, index = state
    for name in INDEX, f"part-{16 * 'a'}.tar":
        (folder / f".{name}.0123abcd.tmp").touch()
    write(folder, "digits", index, lambda: files, LIMIT)
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []


def test_what_was_written_is_told_in_words(tmp_path):
    files = laid_out(tmp_path / "here", {"checkpoints/aa.ckpt": 500})
    _, written = write(tmp_path / "state", "digits", None, lambda: files, LIMIT)
    assert str(written) == "2 files, 0.0 MB (2 of them new, 0.0 MB)"
    assert str(Written(1, 0, 0, 0)).startswith("1 file,")


def test_more_runs_than_files_can_be_open_are_taken_over(tmp_path):
    resource = pytest.importorskip("resource")
    files = laid_out(tmp_path / "here", {f"{k:012x}.json": 9 for k in range(100)})
    index, _ = write(tmp_path / "state", "digits", None, lambda: files, LIMIT)
    first = os.dup(0)  # the lowest that is free
    os.close(first)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first + 50, hard))
    try:
        take(tmp_path / "state", index, tmp_path / "there")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_another_process_finishes_meanwhile_is_looked_for_again(tmp_path):
    sizes = {"checkpoints/aa.ckpt": 500}
    first = laid_out(tmp_path / "here", sizes)
    then = laid_out(tmp_path / "here", {"aa.json": 40, "weights/aa.safetensors": 50})
    looks = iter([first, then])

    def find():
        found = next(looks)
        if found is first:
            first["checkpoints/aa.ckpt"].unlink()
        return found

    index, _ = write(tmp_path / "state", "digits", None, find, LIMIT)
    assert set(index.sizes) == set(then)


def test_a_file_that_changes_while_it_is_read_is_never_half_there(
    tmp_path, monkeypatch
):
    files = laid_out(tmp_path / "here", {"checkpoints/aa.ckpt": 500})
    file = files["checkpoints/aa.ckpt"]
    from kdbench.carrying import packing

    real = packing.sha256_of
    changes = iter([b"later", b"last"])

    def hashed(path):
        known = real(path)
        if path == file:
            file.write_bytes(next(changes, b"last"))
        return known

    monkeypatch.setattr(packing, "sha256_of", hashed)
    write(tmp_path / "state", "digits", None, lambda: files, LIMIT)
    unpack(tmp_path / "state", read_index(tmp_path / "state"), tmp_path / "there")
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_a_file_that_changes_all_the_time_is_given_up_on(tmp_path):
    files = laid_out(tmp_path / "here", {"checkpoints/aa.ckpt": 500})
    gone = {"checkpoints/aa.ckpt": tmp_path / "nowhere"}
    with pytest.raises(Unwritable, match="all the time"):
        write(tmp_path / "state", "digits", None, lambda: files | gone, LIMIT)


# --- what is refused ------------------------------------------------------------------


def damage(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[700] ^= 1
    (folder / name).write_bytes(content)


def edit(folder, change):
    known = json.loads((folder / INDEX).read_bytes())
    change(known)
    (folder / INDEX).write_text(json.dumps(known))


def renamed(path):
    """The index names the first member otherwise."""

    def change(known):
        old = known["members"][0]["path"]
        known["members"][0]["path"] = path
        for piece in (p for part in known["parts"] for p in part["pieces"]):
            piece["path"] = path if piece["path"] == old else piece["path"]

    return change


def replaced(folder, name, kind=tarfile.REGTYPE):
    """The first part holds something else, and the index knows its hash."""
    known = json.loads((folder / INDEX).read_bytes())
    part = known["parts"][0]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, "/etc/passwd"
        tar.addfile(entry)
    (folder / part["file"]).write_bytes(buffer.getvalue())
    part["sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    (folder / INDEX).write_text(json.dumps(known))


@pytest.mark.parametrize(
    "path",
    [
        "../aa.json",
        "/aa.json",
        "weights/../../aa.safetensors",
        "weights\\aa.safetensors",
        "C:aa.json",
        ".aa.json",
        "report/aa.json",
        "checkpoints/aa.py",
        "aa.ckpt",
        "",
    ],
)
def test_a_path_that_leaves_the_folders_is_refused(state, path):
    folder, _ = state
    edit(folder, renamed(path))
    with pytest.raises(UserError, match=r"state\.json is damaged.*no file of a state"):
        read_index(folder)


def test_a_part_elsewhere_is_refused(state):
    folder, _ = state
    edit(folder, lambda known: known["parts"][0].update(file="../part.tar"))
    with pytest.raises(UserError, match="no name of a part"):
        read_index(folder)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("../aa.json", tarfile.REGTYPE), (f"{0:012x}.json", tarfile.SYMTYPE)],
)
def test_a_part_that_holds_something_else_is_refused(state, name, kind):
    folder, _ = state
    replaced(folder, name, kind)
    with pytest.raises(UserError, match="it holds other files than"):
        check(folder, read_index(folder), "digits")


@pytest.mark.parametrize("how", ["bit", "cut", "gone", "none"])
def test_a_part_that_is_not_as_it_was_is_named(state, how):
    folder, index = state
    part = folder / index.parts[-1].file
    if how == "bit":
        damage(folder, part.name)
    elif how == "cut":
        part.write_bytes(part.read_bytes()[:-1])
    elif how == "none":
        part.write_bytes(b"")
    else:
        part.unlink()
    what = "missing" if how == "gone" else "damaged"
    with pytest.raises(UserError, match=rf"{part.name} is {what}.*once more"):
        check(folder, index, "digits")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda k: k["members"].pop(), "do not fit together"),
        (lambda k: k["members"].append(k["members"][0]), "named twice"),
        (lambda k: k["parts"].pop(), "the pieces of|pieces of .* are missing"),
        (lambda k: k["parts"][0]["pieces"][0].update(start=5), "do not fit together"),
        (lambda k: k.update(more=1), "Extra inputs"),
        (lambda k: k.update(format=2, kdbench="9.9"), r"format 2.*kdbench 9\.9"),
    ],
)
def test_an_index_that_is_not_as_it_was_is_refused(state, change, says):
    folder, _ = state
    edit(folder, change)
    with pytest.raises(UserError, match=says):
        read_index(folder)


def test_an_index_that_is_no_json_is_refused(state):
    folder, _ = state
    path = folder / INDEX
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"state\.json is damaged"):
        read_index(folder)


def test_members_with_another_hash_are_refused(state, tmp_path):
    folder, _ = state
    edit(folder, lambda k: k["members"][3].update(sha256="0" * 64))
    index = read_index(folder)
    check(folder, index, "digits")
    with pytest.raises(UserError, match="has another hash"):
        unpack(folder, index, tmp_path / "there")


def test_another_suites_state_is_refused_by_name(state):
    folder, index = state
    with pytest.raises(UserError, match="suite 'digits', and this is 'mnist'"):
        check(folder, index, "mnist")


def test_nothing_is_no_state_yet_and_something_else_is_an_error(tmp_path):
    assert read_index(tmp_path / "nowhere") is None
    (tmp_path / ".hidden").touch()
    assert read_index(tmp_path) is None
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UserError, match=r"thesis\.txt is there"):
        read_index(tmp_path)
    with pytest.raises(UserError, match="thesis"):
        read_index(tmp_path / "thesis.txt")
