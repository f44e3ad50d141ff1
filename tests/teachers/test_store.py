"""Teachers are trained once: found again by content, known by hash, measured again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kdbench.api import Data, Split, UserError
from kdbench.config import Suite
from kdbench.data.digits import load as load_digits
from kdbench.engine.teacher import weights_hash
from kdbench.plugins import Host
from kdbench.recording import weights_path
from kdbench.records import RMSE, TOP1, Recipe
from kdbench.session import Session
from kdbench.store import write_record
from kdbench.teachers.store import Shared, adopt, data_hash, deposit, kept, store_folder
from kdbench.weights import Trained, drift, read, state_hash, write

QUICK = {"pairs": ["digits-mlp"], "strategies": ("scratch", "kd")}
TEACHER = "mlp_bn_256_128/teacher/0"


@pytest.fixture
def trained(copied, tmp_path):
    """A results folder with a teacher, and its record; the cache has it, too."""
    record = copied(tmp_path / "first", strategies=QUICK["strategies"])
    return tmp_path / "first" / "digits", record


@pytest.fixture
def session(host, helpers, tmp_path, capsys):
    """Run digits once more into another folder: the session, records, what it said."""

    def run(out="second", retrain=False, **changes):
        suite = helpers["suite"](host, **{**QUICK, **changes})
        options = helpers["options"](tmp_path / out, retrain_teachers=retrain)
        made = Session(host, suite, options)
        made.train()
        said = " ".join(capsys.readouterr().out.split())
        return made, helpers["by_cell"](tmp_path / out / "digits"), said

    return run


@pytest.fixture
def data() -> str:
    return data_hash(load_digits(None, False))


def damage(path: Path) -> None:
    """Turn one byte of the last tensor over."""
    content = bytearray(path.read_bytes())
    content[-2] ^= 0x40
    path.write_bytes(content)


def test_a_second_suite_trains_no_teacher_and_gets_the_same_bits(
    trained, session, helpers, monkeypatch, tmp_path
):
    folder, teacher = trained
    _, second, said = session()
    assert "2 runs to do" in said
    assert "mlp_bn_256_128 #0 taken from the cache (" in said
    assert f"trained {teacher.finished_at[:10]}" in said
    assert second[TEACHER] == teacher  # also its time and cost: it is the same one
    kept_weights = weights_path(tmp_path / "second" / "digits", teacher.id)
    assert kept_weights.read_bytes() == weights_path(folder, teacher.id).read_bytes()
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "empty"))
    _, without, said = session("third")
    assert "taken from the cache" not in said
    assert without[TEACHER].finished_at != teacher.finished_at
    for cell, record in without.items():
        assert helpers["bits"](record) == helpers["bits"](second[cell])


def test_a_teacher_is_not_taken_where_none_is_wanted(trained, session):
    _, second, said = session(retrain=True)
    assert "3 runs to do" in said
    assert second[TEACHER].finished_at != trained[1].finished_at
    [path] = kept(trained[1].id)
    card, _ = read(path)
    assert card.record == second[TEACHER]  # it takes the place of the first


def test_another_recipe_or_seed_is_another_teacher(trained, session):
    _, _, said = session(epochs=1)
    assert "3 runs to do" in said
    assert "taken from the cache" not in said


def test_a_damaged_cache_is_named_set_aside_and_trained_again(
    trained, session, helpers
):
    [path] = kept(trained[1].id)
    damage(path)
    _, second, said = session()
    assert path.name in said
    assert "its weights have sha256" in said
    assert "trained again" in said
    assert path.with_suffix(".damaged").is_file()
    assert helpers["bits"](second[TEACHER]) == helpers["bits"](trained[1])
    read(path)  # and the new one took its place


@pytest.mark.parametrize("content", [b"", b"no weights", b"\x08" + b"\0" * 7 + b"{"])
def test_a_torn_cache_is_set_aside(trained, session, content):
    [path] = kept(trained[1].id)
    path.write_bytes(content)
    _, _, said = session()
    assert "set aside as" in said
    read(path)


def test_a_cache_that_cannot_be_written_stops_nobody(session, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "file"))
    made, records, said = session()
    assert not made.failed
    assert "is not in the cache" in said
    assert len(records) == 3


def test_a_folder_from_before_fills_the_cache(trained, session, tmp_path):
    [path] = kept(trained[1].id)
    path.unlink()
    session("first")
    assert read(path)[0].record == trained[1]


def test_a_resumed_folder_does_not_hash_its_data_again(trained, session, monkeypatch):
    monkeypatch.delattr("kdbench.teachers.store.data_hash")
    _, _, said = session("first")
    assert "0 runs to do" in said
    assert "is not in the cache" not in said


def test_a_teacher_of_other_data_is_not_taken(trained, tmp_path, data):
    record, note = adopt(tmp_path / "new", trained[1].id, "other data")
    assert record is None
    assert "for other data under the name digits" in note
    assert adopt(tmp_path / "new", trained[1].id, data)[0] == trained[1]


def test_one_that_never_was_is_not_there(tmp_path, data):
    assert adopt(tmp_path, "0123456789ab", data) == (None, None)


def test_the_hash_of_data_sees_every_part_of_them():
    one = load_digits(None, False)
    changed = one.train.inputs.clone()
    changed[700, 0, 3, 3] += 1
    labels = one.test.targets.clone()
    labels[-1] = (labels[-1] + 1) % 10
    others = [
        replace(one, train=Split(inputs=changed, targets=one.train.targets)),
        replace(one, test=Split(inputs=one.test.inputs, targets=labels)),
        replace(one, train=one.test),
    ]
    assert len({data_hash(d) for d in (one, *others)}) == 4
    assert data_hash(one) == data_hash(load_digits(None, False))


def test_data_are_hashed_as_one_thread_computes_them(host, tmp_path, monkeypatch):
    """Sums of several threads end in other digits: no other machine had the hash."""
    torch.set_num_threads(2)
    seen = []

    def loaded(*_):
        seen.append(torch.get_num_threads())
        return load_digits(None, False)

    monkeypatch.setattr("kdbench.teachers.store.loaded", loaded)
    shared = Shared(host, tmp_path, None, retrain=False)
    assert shared.data_hash("digits") == data_hash(load_digits(None, False))
    assert seen == [1]
    assert torch.get_num_threads() == 2


def test_the_hash_of_a_state_is_that_of_its_module(host):
    module = host.dataset("digits").build(host.model("mlp_bn_8_8"))
    assert state_hash(module.state_dict()) == weights_hash(module)


def test_the_first_of_two_teachers_stays_and_the_other_is_named(trained, data):
    folder, record = trained
    path = weights_path(folder, record.id)
    state = load_file(path)
    state["classifier.bias"] += 1
    save_file(state, path)
    other = record.model_copy(update={"weights_sha256": state_hash(state)})
    assert "other weights here than in the cache" in deposit(folder, other, data)
    [stored] = kept(record.id)
    assert read(stored)[0].record == record
    assert deposit(folder, other, data, replace=True) is None
    assert read(stored)[0].record == other


def test_students_of_one_folder_keep_their_one_teacher(trained, data):
    """Its weights got lost there, and the cache has others: do not mix the two."""
    folder, record = trained
    [stored] = kept(record.id)
    card, state = read(stored)
    state["classifier.bias"] += 1
    other = record.model_copy(update={"weights_sha256": state_hash(state)})
    write(stored, state, Trained(record=other, data=card.data))
    weights_path(folder, record.id).unlink()
    found, note = adopt(folder, record.id, data)
    assert found is None
    assert "other weights than the one that taught in" in note


def test_a_lost_teacher_comes_back_from_the_cache(trained, session):
    folder, record = trained
    weights_path(folder, record.id).unlink()
    _, _, said = session("first", strategies=["scratch", "dkd"])
    assert "taken from the cache" in said


def test_a_deposit_of_damaged_weights_is_refused(trained, data):
    folder, record = trained
    damage(weights_path(folder, record.id))
    [stored] = kept(record.id)
    stored.unlink()
    with pytest.raises(UserError, match="is damaged"):
        deposit(folder, record, data)
    assert not stored.exists()


def test_several_at_once_leave_one_whole_teacher(trained, data, tmp_path):
    folder, record = trained

    def work(k):
        for turn in range(5):
            deposit(folder, record, data, replace=True)
            yield adopt(tmp_path / f"{k}-{turn}", record.id, data)[0]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda k: list(work(k)), range(4)))
    assert found == [[record] * 5] * 4
    assert [p.name for p in store_folder().iterdir()] == [kept(record.id)[0].name]


# --- measured again when loaded -------------------------------------------------------


def test_a_teacher_that_measures_otherwise_teaches_nobody(trained, session, host):
    """Its weights are whole, and the data are not those that it was measured on."""
    folder, record = trained
    known = record.measures["top1"]
    measured = {"measures": {**record.measures, "top1": 12.5}, "correct": None}
    write_record(folder, record.model_copy(update=measured))
    made, records, _ = session("first", strategies=["scratch", "dkd"])
    [failed] = made.failed
    assert failed.run.label == "dkd"
    assert f"measures Top-1 {known:.2f}% here, and 12.50% when" in failed.reason
    assert "the data, their preprocessing or the model's code" in failed.reason
    assert records["digits-mlp/kd/0"].status == "finished"


HERE = {"cpu": "one", "device": "cpu", "threads": 1, "torch": "2"}


@pytest.mark.parametrize(
    ("headline", "known", "value", "items", "then", "agrees"),
    [
        (TOP1, 90.0, 90.0, 450, {}, True),
        (TOP1, 90.0, 90.0 + 100 / 450, 450, {}, False),  # one machine: to the item
        (TOP1, 90.0, 90.0 + 100 / 450, 450, {"cpu": "two"}, True),  # one item
        (TOP1, 90.0, 90.0 + 200 / 450, 450, {"cpu": "two"}, False),
        (TOP1, 90.0, 90.1, 10_000, {"torch": "3"}, True),
        (TOP1, 90.0, 89.89, 10_000, {"torch": "3"}, False),
        (RMSE, 2.0, 2.001, 450, {}, False),
        (RMSE, 2.0, 2.019, 450, {"threads": 2}, True),
        (RMSE, 2.0, 2.021, 450, {"threads": 2}, False),
        (TOP1, 90.0, float("nan"), 450, {"cpu": "two"}, False),
        (TOP1, None, 90.0, 450, {}, True),  # nothing to compare with
    ],
)
def test_how_far_a_headline_may_drift(headline, known, value, items, then, agrees):
    why = drift(headline, known, value, items, {**HERE, **then}, HERE)
    assert (why is None) == agrees


def test_on_a_gpu_the_last_item_may_flip():
    there = {**HERE, "device": "cuda"}
    assert drift(TOP1, 90.0, 90.05, 10_000, there, there) is None


# --- models that are not trained here -------------------------------------------------


def test_every_teacher_of_an_ensemble_is_shared(session):
    session("one", strategies=["ensemble_kd"])
    _, records, said = session("two", strategies=["ensemble_kd"])
    assert said.count("taken from the cache") == 3
    assert records["digits-mlp/ensemble_kd/0"].status == "finished"


BOUGHT = """
from functools import partial
import torch
from torch import nn
from kdbench import Model, Pair, hookimpl

class Net(nn.Module):
    def __init__(self, shape, outputs):
        super().__init__()
        self.head = nn.Linear(64, outputs)
    def forward(self, x):
        return self.head(x.flatten(1))

def best():
    return Net(None, 10).state_dict() | {"head.bias": torch.arange(10.0)}

@hookimpl
def kdbench_models():
    return [Model(name="bought", summary="", build=Net, weights=best, taps={},
                  classifier="head")]

@hookimpl
def kdbench_pairs():
    return [Pair(name="own", teachers=("bought",), students=("mlp_5",))]
"""


def test_a_model_trained_elsewhere_is_not_kept_twice(helpers, tmp_path):
    (tmp_path / "bought.py").write_text(BOUGHT)
    suite = Suite(
        name="own",
        datasets=("digits",),
        pairs=("own",),
        strategies=("scratch",),
        seeds=1,
        recipe=Recipe(epochs=1),
    )
    host = Host(files=[tmp_path / "bought.py"])
    made = Session(host, suite, helpers["options"](tmp_path / "out"))
    made.train()
    assert not made.failed
    assert not store_folder().exists()


def test_all_of_a_set_of_common_size_is_hashed():
    """64 MB and more: one changed item anywhere is another set."""
    images = torch.zeros(20_000, 1, 64, 64, dtype=torch.uint8)
    targets = torch.zeros(20_000, dtype=torch.int64)
    small = Split(inputs=images[:2], targets=targets[:2])
    known = data_hash(Data(train=Split(inputs=images, targets=targets), test=small))
    images[12_345, 0, 1, 2] = 1
    train = Split(inputs=images, targets=targets)
    assert data_hash(Data(train=train, test=small)) != known


def test_retraining_trains_students_anew_too(trained, session, capsys):
    _, _, said = session(out="first", retrain=True)
    assert "3 runs to do" in said
    assert "taken from the cache" not in said
    _, _, said = session(out="first")
    assert "0 runs to do" in said
