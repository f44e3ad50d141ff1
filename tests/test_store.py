"""Records on disk: whole or absent, and never a crash for a bad file."""

import json

import pytest

from kdbench.api import UserError
from kdbench.cards import Card
from kdbench.frames import load_results
from kdbench.records import Recipe, Record, Run, SpeedRecord
from kdbench.store import load, read_record, runs_in, write_record

RECIPE = Recipe(epochs=2, milestones=())


def make(label="kd", seed=0, top1=70.0, day=1, **run):
    values = {
        "dataset": "digits",
        "pair": "big-small",
        "teachers": ("big",),
        "students": ("small",),
        "strategy": label,
        "label": label,
        "params": {"temperature": 4.0},
        "seed": seed,
        "recipe": RECIPE,
        "teacher_runs": (),
        "code": {"strategy": "1"},
    }
    described = Run(**(values | run))
    return Record(
        id=described.id,
        run=described,
        status="finished",
        family="logits",
        plugin={"name": "soft-targets", "version": "1"},
        environment={"cpu": "Xeon", "device": "cpu"},
        finished_at=f"2026-01-{day:02}T00:00:00+00:00",
        curves={"top1": [50.0, None]},
        measures={"top1": top1, "agreement": None},
        cost={"train_s": 3.5},
    )


def speed(model="small", day=1, **environment):
    return SpeedRecord(
        model=model,
        dataset="digits",
        measures={"latency_ms": 1.0},
        environment={"cpu": "Xeon", "device": "cpu"} | environment,
        finished_at=f"2026-01-{day:02}T00:00:00+00:00",
    )


@pytest.mark.parametrize("record", [make(), speed()])
def test_a_record_survives_the_disk(tmp_path, record):
    path = write_record(tmp_path / "new", record)
    assert read_record(path) == record
    assert path.read_text().endswith("}\n")
    assert list(path.parent.iterdir()) == [path]


def test_file_names(tmp_path):
    record = make()
    assert write_record(tmp_path, record).name == f"{record.id}.json"
    name = write_record(tmp_path, speed("hub/net v2")).name
    assert name.startswith("speed-hub_net_v2-digits-")
    assert write_record(tmp_path, speed("hub_net_v2")).name != name
    assert write_record(tmp_path, speed("hub/net v2", day=2)).name == name
    assert write_record(tmp_path, speed("hub/net v2", gpu="H200")).name != name


def test_equal_records_are_equal_bytes(tmp_path):
    one, two = make(), make()
    reordered = two.model_copy(
        update={"measures": dict(reversed(two.measures.items()))}
    )
    first = write_record(tmp_path / "a", one).read_bytes()
    assert write_record(tmp_path / "b", reordered).read_bytes() == first
    assert first.startswith(b'{\n "checksum": "')


def test_a_failed_write_leaves_the_old_record_and_no_litter(tmp_path, monkeypatch):
    path = write_record(tmp_path, make())
    before = path.read_bytes()

    def full(_):
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_record(tmp_path, make(day=9))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_files_are_named_and_skipped(tmp_path):
    good = write_record(tmp_path, make())
    text = good.read_text()
    edited = json.loads(text)
    unsealed = {k: v for k, v in json.loads(text).items() if k != "checksum"}
    edited["run"]["seed"] = 7
    files = {
        "half": text[: len(text) // 2],
        "edited": json.dumps(edited),
        "tweaked": text.replace("70.0", "70.5"),
        "other run": json.dumps({k: v for k, v in edited.items() if k != "checksum"}),
        "miscounted": json.dumps(
            {**unsealed, "correct": "8A==", "test_items": 8, "id": good.stem}
        ),
        "no bits": json.dumps({**unsealed, "correct": "ä", "test_items": 8}),
        "foreign": '{"name": "package"}',
        "list": "[1]",
        "empty": "",
        "nan": text.replace("70.0", "NaN"),
        "deep": "[" * 100_000,
    }
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(content)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "notes.txt").write_text("not looked at")
    found = load([tmp_path])
    assert found.records == [make()]
    reasons = {path.stem: reason for path, reason in found.damaged}
    assert set(reasons) == {*files, "binary", "folder"}
    assert all(reason and "\n" not in reason for reason in reasons.values())
    assert "is not the hash of its run" in reasons["other run"]
    assert reasons["edited"].startswith("edited after it was written")
    assert reasons["tweaked"].startswith("edited after it was written")
    assert "its top1 is 70, but 50% of its items" in reasons["miscounted"]
    assert reasons["no bits"].startswith("correct: not base64")
    assert reasons["half"].startswith("not complete JSON")
    assert reasons["foreign"] == "not a kdbench record"
    with pytest.raises(UserError, match=r"half\.json: not complete JSON"):
        read_record(tmp_path / "half.json")


def test_layout_and_line_endings_are_no_edit(tmp_path):
    path = write_record(tmp_path, make())
    text = path.read_text()
    for same in (text.replace("\n", "\r\n"), json.dumps(json.loads(text), indent=4)):
        path.write_bytes(same.encode())
        assert read_record(path) == make()


def test_records_of_before_have_no_checksum(tmp_path):
    path = write_record(tmp_path, make())
    data = json.loads(path.read_text())
    del data["checksum"]
    path.write_text(json.dumps(data))
    assert load([tmp_path]).records == [make()]


def test_cards_are_kept_beside_the_records(tmp_path):
    card = Card(strategy="a/b", code="1", family="logits", summary="What it is.")
    newer = card.model_copy(update={"code": "2"})
    names = {write_record(tmp_path, one).name for one in (card, newer, card)}
    assert len(names) == 2
    assert all(name.startswith("strategy-a_b-") for name in names)
    write_record(tmp_path, make())
    assert sorted(load([tmp_path]).cards, key=lambda c: c.code) == [card, newer]


def test_the_newest_of_a_cell_is_kept(tmp_path):
    old = make(top1=1.0, day=3)
    new = make(top1=2.0, day=20, code={"strategy": "2"})
    other = make(seed=1)
    for record in (new, old, other):
        write_record(tmp_path, record)
    found = load([tmp_path])
    assert found.records == [new, other]
    assert found.superseded == 1


def test_a_wanted_record_is_kept_though_a_clock_made_another_newer(tmp_path):
    """A clock that jumped back must not make a run be trained for ever."""
    there, other = make(day=2), make(day=1, code={"strategy": "2"})
    for record in (there, other):
        write_record(tmp_path, record)
    assert [r.id for r in load([tmp_path]).records] == [there.id]
    assert [r.id for r in load([tmp_path], {other.id}).records] == [other.id]
    assert {r.id for r in runs_in(tmp_path)} == {there.id, other.id}


def test_newest_is_by_time_not_by_spelling(tmp_path):
    later = make().model_copy(update={"finished_at": "2026-01-01T10:00:00+00:00"})
    early = make(code={"strategy": "2"}).model_copy(
        update={"finished_at": "2026-01-01T11:00:00+05:00"}
    )
    for record in (later, early):
        write_record(tmp_path, record)
    assert load([tmp_path]).records == [later]


def test_a_superseded_teacher_that_is_referred_to_is_kept(tmp_path):
    def teacher(day, code):
        models = {"teachers": (), "students": ("big",), "code": {"strategy": code}}
        return make("teacher", day=day, **models)

    used, unused, newest = teacher(1, "1"), teacher(2, "2"), teacher(3, "3")
    student = make(teacher_runs=(used.id,))
    for record in (used, unused, newest, student):
        write_record(tmp_path, record)
    found = load([tmp_path])
    assert {r.id for r in found.records} == {used.id, newest.id, student.id}
    assert found.superseded == 1


def test_different_settings_do_not_supersede_each_other(tmp_path):
    for record in (make(), make(recipe=Recipe(epochs=3)), make(protocol="0")):
        write_record(tmp_path, record)
    assert len(load([tmp_path]).records) == 3


def test_several_folders_are_one_result(tmp_path):
    write_record(tmp_path / "a", make())
    write_record(tmp_path / "b", make(day=2))
    write_record(tmp_path / "b", speed())
    write_record(tmp_path / "a", speed(day=2))
    found = load([tmp_path / "a", tmp_path / "b"])
    assert [r.finished_at[8:10] for r in (*found.records, *found.speed)] == ["02"] * 2
    assert found.superseded == 2


def test_nothing_to_load_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"no results folder .*kdbench run"):
        load([tmp_path / "missing"])
    with pytest.raises(UserError, match=r"no record in .*kdbench run"):
        load([tmp_path])
    write_record(tmp_path / "suite", speed())
    with pytest.raises(UserError, match=r"did you mean .*suite"):
        load([tmp_path])
    with pytest.raises(UserError, match="no run in"):
        load([tmp_path / "suite"])
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "x.json").write_text("{")
    with pytest.raises(UserError, match=r"x\.json.*delete the damaged files"):
        load([bad])


def test_load_results_is_one_row_per_run(tmp_path):
    write_record(tmp_path, make())
    write_record(tmp_path, make("other", params={"seed": 1}, teachers=("a", "b")))
    frame = load_results(tmp_path).set_index("label")
    row = frame.loc["kd"]
    assert (row["dataset"], row["seed"], row["status"]) == ("digits", 0, "finished")
    assert (row["top1"], row["cost_train_s"], row["param_temperature"]) == (70, 3.5, 4)
    assert frame.loc["other", "teachers"] == "a+b"
    assert frame.loc["other", "param_seed"] == 1
    assert frame["agreement"].isna().all()


def test_a_frame_tells_apart_what_a_report_does(tmp_path):
    write_record(tmp_path / "a", make(engine=3))
    write_record(tmp_path / "b", make(seed=1, compression="half", source="0"))
    (tmp_path / "b" / "half.json").write_text("{")
    with pytest.warns(UserWarning, match=r"half\.json is left out: not complete JSON"):
        frame = load_results(tmp_path / "a", tmp_path / "b")
    frame = frame.set_index("seed").sort_index()
    assert frame["engine"].to_list() == [3, make().run.engine]
    assert frame["compression"].to_list() == ["", "half"]
    assert frame.loc[0, ["headline", "code", "cpu"]].to_list() == ["top1", "1", "Xeon"]
    write_record(tmp_path / "c", make(protocol="9"))
    with pytest.raises(UserError, match="different protocol versions"):
        load_results(tmp_path / "a", tmp_path / "c")


def test_a_folder_given_twice_supersedes_nothing(tmp_path):
    write_record(tmp_path / "a", make())
    write_record(tmp_path / "copy", make())
    folder = tmp_path / "a"
    found = load([folder, folder / ".." / "a", tmp_path / "copy"])
    assert (len(found.records), found.superseded) == (1, 0)


def test_files_without_a_checksum_are_counted(tmp_path):
    path = write_record(tmp_path, make())
    write_record(tmp_path, make(seed=1))
    assert load([tmp_path]).unsealed == 0
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data, indent=3))  # laid out anew: it still has one
    assert load([tmp_path]).unsealed == 0
    del data["checksum"]
    path.write_text(json.dumps(data))
    assert load([tmp_path]).unsealed == 1
