"""Every strategy of every plugin, through the engine, on real digits."""

from __future__ import annotations

import math

import pytest

from kdbench.api import Strategy
from kdbench.catalogue import field_comments
from kdbench.config import changed, read_suite
from kdbench.session import Session

pytestmark = pytest.mark.xdist_group("trained")  # once, in one process

GENTLE = {
    "ab": "ab[ab_epochs=2]",
    "at": "at[at_weight=10]",
    "cat_kd": "cat_kd[cat_weight=4]",
    "ft": "ft[paraphraser_epochs=4]",
    "meta_pseudo_labels": "meta_pseudo_labels[label_fraction=0.5,finetune_share=0.5]",
    "mlkd": "mlkd[kd_weight=0.1,batch_weight=0.01,class_weight=0.01]",
    "noisy_student": "noisy_student[dropout=0,label_fraction=1]",
    "nst": "nst[nst_weight=5]",
    "semckd": "semckd[sem_weight=10]",
}
"""Settings for ten epochs of a student of 1,200 parameters, where the published ones
are for a hundred classes, natural images or many epochs and outweigh its labels."""


@pytest.fixture(scope="module")
def trained(host, helpers, tmp_path_factory):
    """Ten epochs on the convnet pair, of every strategy that it has channels for."""
    out = tmp_path_factory.mktemp("trained")
    known = read_suite(host.get("suites", "digits-all").thing.path)
    changes = {"epochs": 10, "seeds": 1, "pairs": ["digits-conv"], "validation": 0.0}
    names = [text.partition("[")[0] for text in known.strategies]
    names = [GENTLE.get(name, name) for name in names if name != "fsp"]
    session = Session(
        host, changed(known, {**changes, "strategies": names}), helpers["options"](out)
    )
    session.train()
    assert session.failed == []
    records = helpers["by_cell"](out / "digits-all").values()
    return {r.run.strategy: r for r in records if not r.run.is_teacher}


@pytest.mark.slow
def test_every_strategy_learns(trained, host):
    """Twice the 10% of an untrained student at the least, and finite to the end."""
    for label, record in trained.items():
        assert record.measures["top1"] > 20.0, label
        for name, curve in record.curves.items():
            known = [v for v in curve if v is not None]  # null: not in that phase
            assert known, name
            assert all(math.isfinite(v) for v in known), name


@pytest.mark.slow
def test_every_strategy_lowers_its_own_loss(trained):
    ramped = {"dkd", "reviewkd", "ctkd", "split_transfer", "meta_pseudo_labels"}
    ramped |= {"confident_pseudo_label", "sharpened_pseudo_label"}
    for label, record in trained.items():
        if label in ramped:
            continue  # these change their loss as they go
        terms = [c for n, c in record.curves.items() if n.startswith("loss/")]
        first, last = (sum(c[i] for c in terms) for i in (0, -1))
        assert last < first, label


@pytest.mark.slow
def test_adapters_are_counted_and_dropped(trained):
    """FitNet's regressor is trained, charged, and not part of the student."""
    record = trained["fitnet"]
    assert record.cost["adapter_parameters"] > 12 * 64
    assert record.measures["parameters"] == trained["scratch"].measures["parameters"]


@pytest.mark.slow
def test_cost_counts_what_a_strategy_uses(trained):
    steps = 10 * 21
    whole = 22  # batches of the training set, about which its teacher is asked once
    forwards = {k: r.cost["teacher_forwards"] for k, r in trained.items()}
    for name in ("scratch", "dml", "split_transfer", "byot", "cs_kd", "tf_kd"):
        assert forwards[name] == 0
    assert forwards["kd"] == whole
    assert forwards["ensemble_kd"] == 3 * whole
    assert forwards["fitnet"] == whole + steps  # a stage is not kept
    assert forwards["born_again"] == whole + 2 * steps  # then two generations
    assert trained["born_again"].cost["student_epochs"] == 30
    assert trained["born_again"].cost["epochs_before"] == 20
    assert trained["ft"].cost["epochs_before"] == 4
    assert trained["ft"].cost["student_epochs"] == 10  # the paraphraser is no student
    assert trained["scratch_longer"].cost["student_epochs"] == 20
    assert trained["dml"].cost["student_epochs"] == 20
    assert trained["cs_kd"].cost["student_epochs"] == 20  # two views
    assert trained["kd"].cost["student_epochs"] == 10
    for record in trained.values():
        cost = record.cost
        parts = cost["own_s"] + cost["data_s"] + cost["teacher_s"]
        rest = cost["train_s"] - parts  # of the loop itself
        assert -1e-9 <= rest <= (cost["engine_s"] or rest) + 1e-9
        assert cost["train_shared_s"] <= cost["train_s"] + 1e-9


def test_every_hyper_parameter_says_its_unit_and_source(host):
    for offer in host.all("strategies"):
        strategy = offer.thing
        assert set(field_comments(strategy)) == set(strategy.parameters())


def test_every_strategy_names_family_and_paper(host):
    for offer in host.all("strategies"):
        assert offer.thing.family != "other"
        assert offer.thing.paper
        assert offer.thing.__doc__


def test_all_four_levels_are_exercised(host):
    kinds = [offer.thing for offer in host.all("strategies")]
    plain = [s for s in kinds if not s.drives_itself()]
    assert any(s.adapters is Strategy.adapters and not s().taps for s in plain)
    assert any(s.adapters is not Strategy.adapters for s in plain)
    assert any(s().students > 1 for s in plain)
    assert any(s().teachers > 1 for s in plain)
    assert any(s().label_fraction < 1 for s in plain)
    assert any(s.drives_itself() for s in kinds)


@pytest.mark.slow
@pytest.mark.data
def test_the_articles_number_on_mnist(data_dir, helpers, host, tmp_path):
    """The student distilled by kd reaches at least the article's 98.04%."""
    suite = changed(
        read_suite(host.get("suites", "mnist").thing.path),
        {"seeds": 1, "strategies": ["scratch", "kd"]},
    )
    session = Session(host, suite, helpers["options"](tmp_path, data_dir=data_dir))
    session.train()
    records = helpers["by_cell"](tmp_path / "mnist")
    assert records["mnist-mlp/kd/0"].measures["top1"] >= 98.04
