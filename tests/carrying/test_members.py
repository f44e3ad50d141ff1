"""What a state holds, and what of the results is left out."""

from __future__ import annotations

import shutil

import torch
from carried import After, ids, members, stopped

from kdbench.engine import Stopped
from kdbench.records import Headline, SpeedRecord
from kdbench.store import file_name, read_record, write_record
from kdbench.teachers.imported import path_of
from kdbench.weights import Imported, state_hash
from kdbench.weights import write as write_weights


def test_what_a_state_holds_and_what_not(exported):
    """Records, weights of what has finished, one checkpoint of what has not."""
    assert [p.partition("/")[0] for p in members(exported / "early")] == ["checkpoints"]
    later, done = members(exported / "later"), members(exported / "done")
    folders = sorted(p.rpartition("/")[0] for p in later if "strategy-" not in p)
    assert folders == ["", "checkpoints", "checkpoints", "weights"]
    runs = [p for p in done if "-" not in p]
    assert sorted(p.rpartition("/")[0] for p in runs) == 3 * [""] + 3 * ["weights"]
    assert any(p.startswith("strategy-") for p in done)


def timed(model):
    return SpeedRecord(
        model=model,
        dataset="digits",
        measures={},
        environment={"device": "cpu"},
        finished_at="2026-01-01",
    )


def test_what_was_timed_before_the_limit_is_carried(machines, state, monkeypatch):
    """Speeds and cards go into a state, and out of it where they are not yet."""
    folder = state("done")
    out = machines.bare()

    def measure_speed(*_):
        write_record(out / "digits", timed("mlp_5"))
        raise Stopped

    monkeypatch.setattr("kdbench.session.measure_speed", measure_speed)
    session = machines.session(
        out, speed=True, import_state=folder, export_state=folder
    )
    assert session.run() == 75
    name = file_name(timed("mlp_5"))
    assert name in members(folder)
    there = machines.bare()
    monkeypatch.setattr("kdbench.session.with_cards", lambda _, results, *__: results)
    machines.session(there, After(0), import_state=folder).run()
    assert read_record(there / "digits" / name) == timed("mlp_5")
    cards = {p.name for p in (there / "digits").glob("strategy-*")}
    assert cards == {p for p in members(folder) if p.startswith("strategy-")}
    assert cards
    here = timed("mlp_5").model_copy(update={"finished_at": "2026-02-02"})
    write_record(there / "digits", here)
    machines.session(there, After(0), import_state=folder).run()
    assert read_record(there / "digits" / name) == here


def test_odd_files_among_the_results_are_left_out(machines, exported, tmp_path):
    out = stopped(machines, exported / "done", 0) / "digits"
    one, two = ids(out)[1:]
    shutil.copy(out / f"{one}.json", out / f"{one} (copy).json")
    shutil.copy(out / f"{one}.json", out / "copy.json")
    (out / "weights" / f"{two}.safetensors").write_bytes(b"")
    (out / "checkpoints").mkdir(exist_ok=True)
    (out / "checkpoints" / "what is this.ckpt").touch()
    folder = tmp_path / "state"
    assert machines.session(out.parent, export_state=folder).run() == 0
    expected = members(exported / "done") - {f"weights/{two}.safetensors"}
    assert members(folder) == expected


def test_skipped_runs_are_not_carried(machines, exported, tmp_path):
    """Every command makes their records anew: the state would change each time."""
    out = stopped(machines, exported / "done", 0)
    one = ids(out / "digits")[1]
    record = read_record(out / "digits" / f"{one}.json")
    write_record(out / "digits", record.model_copy(update={"status": "skipped"}))
    session = machines.session(out, After(0), export_state=tmp_path / "state")
    assert session.run() == 75
    assert f"{one}.json" not in members(tmp_path / "state")


def test_a_checkpoint_from_elsewhere_that_teaches_is_carried(machines, host):
    out = machines.bare()
    dataset = host.dataset("digits")
    network = dataset.build(host.model("mlp_bn_8_8")).eval()
    weights = network.state_dict()
    card = Imported(
        name="mine",
        model="mlp_bn_8_8",
        dataset="digits",
        input_shape=dataset.input_shape,
        outputs=10,
        headline=Headline(
            name="top1", title="Top-1", unit="%", gain_unit="points", better="higher"
        ),
        value=10.0,
        test_items=450,
        weights_sha256=state_hash(weights),
        file="theirs.pth",
        file_sha256=64 * "0",
        environment={"device": "gpu"},
        imported_at="2026-01-01",
    )
    write_weights(path_of("mine"), weights, card)
    known = path_of("mine").read_bytes()
    write_weights(path_of("others"), weights, replace_name(card, "others"))
    sides = {"teacher": "imported:mine", "student": "mlp_5"}
    suite = machines.helpers["suite"](
        host, define_pairs={"own": sides}, pairs=["own"], strategies=["kd"]
    )
    state = machines.folder / "state"
    assert machines.session(out, After(30), suite, export_state=state).run() == 75
    there = machines.bare()
    assert not path_of("mine").exists()
    session = machines.session(there, None, suite, import_state=state)
    assert session.run() == 0
    assert path_of("mine").read_bytes() == known
    assert not path_of("others").exists()
    with torch.no_grad():
        weights["classifier.bias"] += 1
    write_weights(
        path_of("mine"),
        weights,
        card.model_copy(update={"weights_sha256": state_hash(weights)}),
    )
    changed = path_of("mine").read_bytes()
    machines.session(there, After(0), suite, import_state=state).run()
    assert path_of("mine").read_bytes() == changed


def replace_name(card, name):
    return card.model_copy(update={"name": name})
