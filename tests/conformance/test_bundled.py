"""Everything that the bundled plugins offer passes the conformance kit."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

from kdbench.conformance.examination import Examination, examine
from kdbench.conformance.targets import Target, find
from kdbench.plugins import BUILTIN, Host

STRATEGIES = Host().names("strategies")
PLUGINS = [*BUILTIN, *sorted(p.name for p in entry_points(group="kdbench"))]


def said(examination: Examination) -> str:
    return "\n".join(
        f"{result.thing.name}: {finding}"
        for result in examination.results
        for finding in result.failures
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_bundled_strategy_passes(name):
    [thing] = [x for x in find(name).things if x.kind == "strategy"]
    examination = examine(Target(name, (thing,)))
    assert said(examination) == ""
    findings = [f for result in examination.results for f in result.findings]
    assert sum(f.status == "passed" for f in findings) >= 15


@pytest.mark.slow
@pytest.mark.parametrize("plugin", PLUGINS)
def test_what_else_a_bundled_plugin_offers_passes(plugin):
    target = find(plugin)
    things = tuple(x for x in target.things if x.kind != "strategy")
    examination = examine(Target(target.title, things))
    assert said(examination) == ""
