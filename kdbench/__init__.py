"""kdbench: which knowledge-distillation strategy gives the best student?

The names below are what plugins are written against; they are loaded on first use, so
that the command line starts fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from kdbench.api import (
        Batch,
        Compression,
        Context,
        Data,
        Dataset,
        Executor,
        Finished,
        Measure,
        Model,
        Outputs,
        Pair,
        Phase,
        Renderer,
        Source,
        Split,
        Strategy,
        SuiteFile,
        Tapped,
        UserError,
        hookimpl,
    )
    from kdbench.frames import load_results
    from kdbench.losses import at_least_float32, soft_kl
    from kdbench.records import Recipe, Record, Run
    from kdbench.tasks import KINDS, Head, Task, label_loss, label_target

__all__ = [
    "KINDS",
    "Batch",
    "Compression",
    "Context",
    "Data",
    "Dataset",
    "Executor",
    "Finished",
    "Head",
    "Measure",
    "Model",
    "Outputs",
    "Pair",
    "Phase",
    "Recipe",
    "Record",
    "Renderer",
    "Run",
    "Source",
    "Split",
    "Strategy",
    "SuiteFile",
    "Tapped",
    "Task",
    "UserError",
    "at_least_float32",
    "hookimpl",
    "label_loss",
    "label_target",
    "load_results",
    "soft_kl",
]

_ELSEWHERE = {"Record": "records", "Recipe": "records", "Run": "records"}
_ELSEWHERE |= {"KINDS": "tasks", "Head": "tasks", "Task": "tasks"}
_ELSEWHERE |= {"at_least_float32": "losses", "soft_kl": "losses"}
_ELSEWHERE |= {"load_results": "frames", "label_loss": "tasks", "label_target": "tasks"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'kdbench' has no attribute {name!r}")
    return getattr(import_module(f"kdbench.{_ELSEWHERE.get(name, 'api')}"), name)
