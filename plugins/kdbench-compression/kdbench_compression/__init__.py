"""Students made from their teacher: pruned, and quantised to int8."""

from pathlib import Path

from kdbench import Model, Pair, SuiteFile, hookimpl
from kdbench_compression import students
from kdbench_compression.pruning import pruned
from kdbench_compression.quantisation import int8

__all__ = ["int8", "pruned"]


@hookimpl
def kdbench_models() -> list[Model]:
    """Compressed students, and plain networks of the same widths."""
    return students.models()


@hookimpl
def kdbench_pairs() -> list[Pair]:
    """Each of them with its teacher."""
    return students.pairs()


@hookimpl
def kdbench_suites() -> list[SuiteFile]:
    """The suite `compress`."""
    folder = Path(__file__).parent / "suites"
    return [SuiteFile(name=p.stem, path=p) for p in sorted(folder.glob("*.toml"))]
