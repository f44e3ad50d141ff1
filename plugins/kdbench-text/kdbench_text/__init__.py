"""Text for kdbench: SST-2, small models of texts, and distillation made for BERT."""

from pathlib import Path

from kdbench import Dataset, Model, Pair, Strategy, SuiteFile, hookimpl
from kdbench_text.huggingface import HuggingFace, huggingface
from kdbench_text.patient_kd import PatientKD
from kdbench_text.sst2 import SST2
from kdbench_text.tinybert_attention import TinyBERTAttention
from kdbench_text.zoo import MODELS, PAIRS

__all__ = ["HuggingFace", "huggingface"]


@hookimpl
def kdbench_datasets() -> list[Dataset]:
    """Datasets of texts."""
    return [SST2]


@hookimpl
def kdbench_models() -> list[Model]:
    """Models that read token ids, largest first in each family."""
    return list(MODELS)


@hookimpl
def kdbench_pairs() -> list[Pair]:
    """One teacher and a student of each family."""
    return list(PAIRS)


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    """Strategies for layered models of texts, in order of publication."""
    return [PatientKD, TinyBERTAttention]


@hookimpl
def kdbench_suites() -> list[SuiteFile]:
    """The suite `sst2`."""
    path = Path(__file__).parent / "suites" / "sst2.toml"
    return [SuiteFile(name="sst2", path=path)]
