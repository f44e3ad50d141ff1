"""Students made from their teacher, or compressed when they are finished."""

from pathlib import Path

from kdbench import Compression, Measure, Model, Pair, SuiteFile, hookimpl
from kdbench_compression import compressions, sparsity, students
from kdbench_compression.magnitude import magnitude_pruned
from kdbench_compression.pruning import pruned
from kdbench_compression.quantisation import int8

__all__ = ["int8", "magnitude_pruned", "pruned"]


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


@hookimpl
def kdbench_compressions() -> list[Compression]:
    """Pruning and quantisation of a finished student, which is then trained further."""
    return compressions.compressions()


@hookimpl
def kdbench_measures() -> list[Measure]:
    """How many weights are zero."""
    return sparsity.MEASURES
