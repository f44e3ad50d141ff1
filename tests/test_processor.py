"""Which processor a record names."""

from __future__ import annotations

import pytest

from kdbench import provenance


@pytest.mark.parametrize(
    ("lines", "name", "model"),
    [
        (
            {
                "model name": "AMD EPYC",
                "cpu family": "26",
                "model": "2",
                "stepping": "1",
            },
            "AMD EPYC",
            "family 26, model 2, stepping 1",
        ),
        ({"cpu part": "0xd0c", "cpu revision": "1"}, None, "part 0xd0c, revision 1"),
        ({}, None, None),
    ],
    ids=["x86", "arm", "not Linux"],
)
def test_the_processor_by_name_and_numbers(monkeypatch, lines, name, model):
    monkeypatch.setattr(provenance, "_cpu", lambda: lines)
    assert provenance.cpu_model() == model
    assert provenance.cpu_name() == name or (name is None and provenance.cpu_name())
    assert provenance.environment("cpu", 1)["cpu_model"] == model
