"""Every strategy of every plugin, through the engine, on real digits."""

from __future__ import annotations

import math

import pytest

from kdbench.api import Strategy
from kdbench.listing import field_comments


@pytest.fixture(scope="module")
def trained(run_digits, tmp_path_factory):
    """Twelve epochs on the convnet pair, which every strategy supports."""
    failed, records = run_digits(
        tmp_path_factory.mktemp("trained"), epochs=12, pairs=["digits-conv"]
    )
    assert failed == 0
    return {r.run.label: r for r in records.values() if not r.run.is_teacher}


SLOW_LEARNERS = {"at": 20.0, "fitnet": 30.0, "sp": 40.0}
"""Their published weights outweigh the labels for a student of 1,200 parameters."""


def test_every_strategy_learns(trained, host):
    """Far above the 10% of an untrained student, and finite to the end."""
    elsewhere = {"teacher_features", "patient_kd", "tinybert_attention"}
    assert set(trained) == set(host.names("strategies")) - elsewhere
    for label, record in trained.items():
        assert record.measures["top1"] > SLOW_LEARNERS.get(label, 60.0), label
        for name, curve in record.curves.items():
            known = [v for v in curve if v is not None]  # null: not in that phase
            assert len(curve) == 12
            assert known, name
            assert all(math.isfinite(v) for v in known), name


def test_every_strategy_lowers_its_own_loss(trained):
    for label, record in trained.items():
        if label in {"dkd", "confident_pseudo_label", "split_transfer"}:
            continue  # these three change their loss as they go
        terms = [c for n, c in record.curves.items() if n.startswith("loss/")]
        first, last = (sum(c[i] for c in terms) for i in (0, -1))
        assert last < first, label


def test_adapters_are_counted_and_dropped(trained):
    """FitNet's regressor is trained, charged, and not part of the student."""
    record = trained["fitnet"]
    assert record.cost["adapter_parameters"] == 12 * 64 + 64
    assert record.measures["parameters"] == trained["scratch"].measures["parameters"]


def test_cost_counts_what_a_strategy_uses(trained):
    steps = 12 * 21
    forwards = {k: r.cost["teacher_forwards"] for k, r in trained.items()}
    assert forwards["scratch"] == forwards["dml"] == forwards["split_transfer"] == 0
    assert forwards["kd"] == steps
    assert forwards["ensemble_kd"] == 3 * steps
    assert trained["dml"].cost["student_epochs"] == 24
    assert trained["kd"].cost["student_epochs"] == 12
    for record in trained.values():
        cost = record.cost
        parts = cost["own_s"] + cost["data_s"] + cost["teacher_s"]
        assert cost["train_s"] == pytest.approx(parts)
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
    from kdbench.config import changed, read_suite
    from kdbench.session import Session

    suite = changed(
        read_suite(host.get("suites", "mnist").thing.path),
        {"seeds": 1, "strategies": ["scratch", "kd"]},
    )
    session = Session(host, suite, helpers["options"](tmp_path, data_dir=data_dir))
    session.train()
    records = helpers["by_cell"](tmp_path / "mnist")
    assert records["mnist-mlp/kd/0"].measures["top1"] >= 98.04
