"""Packaged suites: every TOML file of this folder, by its name."""

from pathlib import Path

from kdbench.api import SuiteFile, hookimpl


@hookimpl
def kdbench_suites() -> list[SuiteFile]:
    folder = Path(__file__).parent
    return [SuiteFile(name=p.stem, path=p) for p in sorted(folder.glob("*.toml"))]
