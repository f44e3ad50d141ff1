"""A state in files: their sizes, what is written again, and what comes out."""

from __future__ import annotations

import random
import shutil
import tarfile

import pytest
from carried import contents
from packed import LIMIT, SIZES, damage, laid_out, parts

from kdbench.carrying.packing import write
from kdbench.carrying.state import check, read_index, unpack


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
