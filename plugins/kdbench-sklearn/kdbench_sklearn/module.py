"""An estimator of scikit-learn as a model of kdbench."""

from __future__ import annotations

import dataclasses
from functools import cache
from importlib import import_module
from typing import Any, get_args

import numpy as np
import torch
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]
from torch import Tensor, nn

from kdbench import Model, UserError
from kdbench.api import Shape
from kdbench_sklearn.kind import Kind, Make
from kdbench_sklearn.learning import Floats, Learned, Way, answer, learn
from kdbench_sklearn.storage import check_trees, from_bytes, to_bytes


class EstimatorModule(nn.Module):
    """(B, ...) -> (B, outputs) by an estimator; `fit` instead of gradients.

    Outputs are log probabilities, decision values, or numbers of a regression, float32.
    Its random_state comes from torch's global generator. Raises UserError where the
    estimator lacks a method that it needs.
    """

    macs_unknown = "an estimator that is no network has no count of its arithmetic"

    def __init__(self, kind: Kind, outputs: int):
        super().__init__()
        kind.check()
        self.kind = kind
        self.outputs = outputs
        self.random_state = int(torch.randint(2**31 - 1, (), device="cpu"))
        self._learned: Learned | None = None
        self._stored = torch.empty(0, dtype=torch.uint8, device="cpu")

    @property
    def fitted(self) -> bool:
        return self._learned is not None

    @property
    def parameter_count(self) -> int | None:
        """Weights of a linear estimator; None for what has no such count."""
        if self._learned is None:
            return None
        total = 0
        for one in self._learned.estimators:
            if getattr(one, "coef_", None) is None:
                return None
            total += np.size(one.coef_) + np.size(one.intercept_)
        return total

    @property
    def learned(self) -> Learned:
        """The fitted estimators. Raises UserError before `fit`."""
        if self._learned is None:
            raise UserError(
                f"model {self.kind.name!r} has learned nothing yet: call fit(inputs, "
                "targets), or load a state_dict"
            )
        return self._learned

    def fit(self, inputs: Tensor, targets: Tensor) -> None:
        """Learn (N, ...) inputs to (N, C) probabilities or (N, K) numbers.

        Raises UserError for targets or inputs that are not finite, and where the
        estimator cannot learn such targets or cannot be stored.
        """
        wanted = targets.detach().double().cpu().numpy()
        rows = _flat(inputs)
        self._refuse(rows, wanted)
        with _threads().limit(limits=torch.get_num_threads()):
            self._learned = learn(self.kind, rows, wanted, self.random_state)
        state = {f.name: getattr(self._learned, f.name) for f in _FIELDS}
        data = to_bytes(state, self.kind.name, self.kind.trusted)
        self._stored = torch.frombuffer(bytearray(data), dtype=torch.uint8)

    def _refuse(self, rows: Floats, wanted: Floats) -> None:
        name = self.kind.name
        if wanted.shape != (len(rows), self.outputs) or not len(rows):
            raise UserError(
                f"model {name!r} has {self.outputs} outputs and was given targets "
                f"{wanted.shape} for {len(rows)} items; expected (items, outputs)"
            )
        for what, values in (("inputs", rows), ("targets", wanted)):
            bad = int((~np.isfinite(values)).any(1).sum())
            if bad:
                raise UserError(
                    f"model {name!r} cannot learn: {what} of {bad} of {len(rows)} "
                    "items hold NaN or infinity; mend the data, or a teacher that "
                    "diverged"
                )

    def forward(self, inputs: Tensor) -> Tensor:
        shape = (len(inputs), self.outputs)
        if inputs.is_meta:
            return torch.empty(shape, device="meta")
        learned = self.learned
        rows = _flat(inputs)
        if rows.shape[1] != learned.width:
            raise UserError(
                f"model {self.kind.name!r} was fitted on {learned.width} inputs and is "
                f"given {rows.shape[1]}"
            )
        with _threads().limit(limits=torch.get_num_threads()):
            found = answer(learned, rows, self.outputs)
        return torch.as_tensor(found, dtype=torch.float32).to(inputs.device)

    def get_extra_state(self) -> Tensor:
        """What it learned, a uint8 tensor on the CPU; empty before `fit`."""
        return self._stored

    def set_extra_state(self, state: Tensor) -> None:
        """Restore it. Raises UserError for content that is not trusted or damaged."""
        stored = state.detach().cpu().clone()
        self._learned = self._read(stored.numpy().tobytes()) if len(stored) else None
        self._stored = stored

    def _read(self, data: bytes) -> Learned:
        name = self.kind.name
        found = from_bytes(data, name, self.kind.trusted)
        fields = {f.name for f in _FIELDS}
        if not isinstance(found, dict) or set(found) != fields:
            raise UserError(f"the stored weights are not those of a model {name!r}")
        learned = Learned(**found)
        if not self._is_mine(learned):
            raise UserError(
                f"the stored weights are those of another estimator than {name!r}; "
                "train the model again"
            )
        check_trees(learned.estimators, learned.width, name)
        return learned

    def _is_mine(self, learned: Learned) -> bool:
        """Whether this holds estimators such as this model makes, and its outputs."""
        from sklearn.dummy import DummyClassifier

        known = {DummyClassifier, type(self.kind.make(0))}
        if self.kind.regressor is not None:
            known.add(type(self.kind.regressor(0)))
        classes = np.asarray(learned.classes)
        return (
            learned.way in get_args(Way)
            and isinstance(learned.width, int)
            and isinstance(learned.estimators, list)
            and len(learned.estimators) > 0
            and {type(e) for e in learned.estimators} <= known
            and classes.dtype.kind == "i"
            and bool(((classes >= 0) & (classes < self.outputs)).all())
        )


_FIELDS = dataclasses.fields(Learned)


def _flat(inputs: Tensor) -> Floats:
    """(N, ...) on any device -> (N, D) float32."""
    rows = inputs.detach().float().flatten(1).cpu().numpy()
    return np.ascontiguousarray(rows)


@dataclasses.dataclass(frozen=True)
class Build:
    """Builds the module of a kind of estimator."""

    kind: Kind

    @property
    def func(self) -> Make:
        """Where the settings stand: what the host takes the source's hash of."""
        return self.kind.make

    def __call__(self, _input_shape: Shape, outputs: int) -> EstimatorModule:
        return EstimatorModule(self.kind, outputs)


@cache
def _threads() -> Any:
    """What limits the threads of the libraries that scikit-learn has loaded."""
    import_module("sklearn.ensemble")
    import_module("sklearn.svm")

    return ThreadpoolController()


def estimator(
    name: str,
    summary: str,
    make: Make,
    *,
    regressor: Make | None = None,
    probabilities: bool = True,
    trusted: tuple[str, ...] = (),
) -> Model:
    """A model out of any estimator with scikit-learn's interface.

    `make` takes a random_state and returns it unfitted. A classifier learns soft
    targets from weighted labels (its fit needs sample_weight for them); a regressor
    learns the probabilities as numbers. `regressor` is its counterpart for tasks of
    numbers. `probabilities` is False where it has no predict_proba. `trusted` are full
    names of types beyond scikit-learn's that its fitted state holds; naming them says
    that loading them from somebody's results is harmless.

    What is wrong with an estimator is said when it is first used (UserError).
    """
    kind = Kind(
        name=name,
        make=make,
        regressor=regressor,
        probabilities=probabilities,
        trusted=tuple(trusted),
    )
    return Model(
        name=name,
        summary=summary,
        build=Build(kind),
        taps={},
        classifier="",
        learner="fitted",
        probabilities=probabilities,
    )
