"""The proof: an export that answers otherwise than the student is not written."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from exports import KD

from kdbench.api import UserError
from kdbench.exporting.proof import proven
from kdbench.exporting.runs import find
from kdbench.exporting.student import finished, other_headline
from kdbench.forms import files
from kdbench.store import write_record


@pytest.fixture(scope="module")
def student(host, digits):
    return finished(find(digits, KD), host, digits, None, "cpu")


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
    with pytest.raises(UserError, match=r"(?s)other outputs.*(0001 is allowed|1e-04)"):
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
