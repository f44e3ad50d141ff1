"""scikit-learn's estimators as models of kdbench, learning from soft targets."""

from pathlib import Path

from kdbench import Model, Pair, Strategy, SuiteFile, hookimpl
from kdbench_sklearn.module import EstimatorModule, estimator
from kdbench_sklearn.pairs import pairs
from kdbench_sklearn.teacher_features import TeacherFeatures
from kdbench_sklearn.zoo import models

__all__ = ["EstimatorModule", "TeacherFeatures", "estimator"]


@hookimpl
def kdbench_models() -> list[Model]:
    return models()


@hookimpl
def kdbench_pairs() -> list[Pair]:
    return pairs()


@hookimpl
def kdbench_strategies() -> list[type[Strategy]]:
    return [TeacherFeatures]


@hookimpl
def kdbench_suites() -> list[SuiteFile]:
    folder = Path(__file__).parent / "suites"
    return [SuiteFile(name="classic-ml", path=folder / "classic-ml.toml")]
