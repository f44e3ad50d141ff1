"""The file of published numbers: whose name each gets, and which is shown."""

from __future__ import annotations

import csv
import dataclasses
from collections import Counter
from pathlib import Path

import pytest

import kdbench.report.published as known
from kdbench.models.pairs import CROSS_FAMILY, SAME_FAMILY


def test_every_row_is_an_entry_or_outside_for_a_stated_reason():
    found = known.published()
    own = [e for e in found.entries if e.strategy not in ("teacher", "scratch")]
    assert len(own) + len(found.outside) == 614
    assert Counter(why for _, why in found.outside) == {
        known.NO_MODEL: 20,
        known.ALONE: 13,
        known.PEER: 12,
    }
    assert Counter(e.dataset for e in own) == {
        "cifar10": 60,
        "cifar100": 428,
        "imagenet": 81,
    }


def test_methods_that_are_no_strategy_are_these():
    """A misspelt or new method in the file would turn up here."""
    others = {e.method for e in known.published().entries if not e.strategy}
    plus_plus = {"KD++", "DIST++", "DKD++", "ReviewKD++", "DIST+", "KD+DOT", "DKD+CTKD"}
    standardised = {"CTKD+LS", "DKD+LS", "MLKD+LS"}
    another_loss = {"CC"}  # the absolute difference of embeddings: not the paper's
    single = {"Sobolev", "BSS", "LwM", "AFD", "SSKD", "L2", "PAD-L2", "ICKD", "SRD"}
    assert others == plus_plus | standardised | single | another_loss


def test_every_name_of_the_tables_is_used():
    with Path(known.__file__).with_name("published.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    on_cifar = {
        row[side]
        for row in rows
        for side in ("teacher", "student")
        if row["dataset"].startswith("CIFAR")
    }
    assert set(known.CIFAR_MODELS) <= on_cifar
    assert set(known.STRATEGIES) <= {row["method"] for row in rows}
    assert set(known.EPOCHS) == {row["epoch_reported"] for row in rows}
    used = {known.source_of(row["source"]) for row in rows}
    assert used == {name for name, _ in known.SOURCES}


@pytest.mark.parametrize(("teacher", "student"), [*SAME_FAMILY, *CROSS_FAMILY])
def test_the_standard_pairs_have_their_common_table(teacher, student):
    cells = known.cells("cifar100", f"{teacher}-{student}")
    common = {n for n, e in cells.items() if e[0].source == "RepDistiller"}
    assert {"teacher", "scratch", "kd", "fitnet", "at", "crd"} <= common


@pytest.mark.parametrize("pair", ["resnet34-resnet18", "resnet50-mobilenetv1"])
def test_the_imagenet_pairs_have_numbers(pair):
    assert {"teacher", "scratch", "kd", "dkd"} <= set(known.cells("imagenet", pair))


def test_numbers_are_those_of_the_file():
    cells = known.cells("cifar100", "resnet56-resnet20")
    shown = {name: (e[0].top1, e[0].cited) for name, e in cells.items()}
    assert shown["teacher"] == (72.34, "RepDistiller, last epoch")
    assert shown["scratch"] == (69.06, "RepDistiller, last epoch")
    assert shown["kd"] == (70.66, "RepDistiller, last epoch")
    assert shown["dkd"] == (71.97, "mdistiller, best test epoch")
    assert shown["logit_standardization"][0] == 71.43
    assert shown["dist"] == (71.75, "DIST_KD, epoch not stated")


def test_a_last_epoch_is_shown_before_an_earlier_source():
    """Then by the order of the sources, whatever their order in the file."""
    entries = known.cells("cifar100", "resnet110-resnet20")["kd"]
    assert [e.source for e in entries] == [
        "RepDistiller",
        "CTKD",
        "logit-standardization-KD",
        "KD-Zoo",
    ]
    late = dataclasses.replace(entries[3], epoch=known.EPOCHS["last"])
    early = dataclasses.replace(entries[0], epoch=known.EPOCHS["best-on-test"])
    assert sorted([early, late], key=known.preference) == [late, early]


def test_baselines_stand_once_for_each_source():
    for name in ("teacher", "scratch"):
        entries = known.cells("cifar100", "resnet56-resnet20")[name]
        sources = [entry.source for entry in entries]
        assert sources[0] == "RepDistiller"
        assert len(sources) == len(set(sources)) == 6
