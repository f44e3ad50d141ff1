"""Which estimator learns what: how to make it, and what it must be able to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kdbench import UserError

Make = Callable[[int], Any]
"""random_state -> a fresh estimator, not yet fitted."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of estimator, by the name of its model.

    Where `make` gives a regressor, it learns probabilities as numbers; where it gives a
    classifier, it learns from weighted labels. `regressor` is for tasks of numbers
    (default: `make`, where that gives a regressor). `trusted` are full names of types,
    beyond scikit-learn's own, that its stored form may hold.
    """

    name: str
    make: Make
    regressor: Make | None = None
    probabilities: bool = True
    trusted: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise UserError, naming the model, unless its estimators will serve."""
        made = self.make(0)
        self._needs(made, "fit", "predict")
        if self.regressor is not None:
            self._needs(self.regressor(0), "fit", "predict")
        if not self.probabilities or self.regresses(made):
            return
        if not hasattr(made, "predict_proba"):
            raise UserError(
                f"{self._who(made)} has no predict_proba, so that its outputs are no "
                "probabilities; offer it with estimator(..., probabilities=False), or "
                "use an estimator that has it"
            )

    def regresses(self, made: Any) -> bool:
        """Whether this is a regressor: by its tags, or else by what it lacks."""
        from sklearn.base import BaseEstimator, is_regressor

        if isinstance(made, BaseEstimator):
            return bool(is_regressor(made))
        classifies = ("predict_proba", "decision_function")
        return self.probabilities and not any(hasattr(made, m) for m in classifies)

    def _needs(self, made: Any, *methods: str) -> None:
        for method in methods:
            if not callable(getattr(made, method, None)):
                raise UserError(
                    f"{self._who(made)} has no {method}(); estimator(...) needs a "
                    "function that takes a random_state and returns an estimator with "
                    "fit(X, y) and predict(X)"
                )

    def weighted(self, made: Any) -> Any:
        """This estimator, where it can weigh its rows; UserError otherwise."""
        from sklearn.utils.validation import has_fit_parameter

        if not has_fit_parameter(made, "sample_weight"):
            raise UserError(
                f"{self._who(made)} cannot learn soft targets: its fit() takes no "
                "sample_weight; train it on labels (scratch, hard_pseudo_label), or "
                "offer a regressor, which learns the probabilities as numbers"
            )
        return made

    def for_numbers(self, random_state: int) -> Any:
        """An estimator for targets that are numbers; UserError where there is none."""
        if self.regressor is not None:
            return self.regressor(random_state)
        made = self.make(random_state)
        if not self.regresses(made):
            raise UserError(
                f"{self._who(made)} is a classifier and cannot learn numbers; name its "
                "counterpart with estimator(..., regressor=...)"
            )
        return made

    def _who(self, made: Any) -> str:
        return f"model {self.name!r} ({type(made).__name__})"
