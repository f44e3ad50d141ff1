"""Files that are no whole state, or another one, are refused by name."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import pytest
from packed import damage

from kdbench.api import UserError
from kdbench.carrying.state import INDEX, check, read_index, unpack


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
