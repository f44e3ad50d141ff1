"""Measures: a number for every run, and several where they are asked for."""

from kdbench import Finished, Measure
from kdbench.api import Measured


def second_best(finished: Finished) -> float:
    """Share of the items whose label is the second likeliest class, percent."""
    runner_up = finished.logits.argsort(dim=1)[:, -2]
    return 100 * (runner_up == finished.targets).double().mean().item()


def spread(finished: Finished) -> Measured:
    """The standard deviation of the logits, of each class too, and if turned round."""
    numbers: dict[str, float | list[float | None] | None] = {
        "": finished.logits.std().item(),
        "by_class": list(finished.logits.std(0).tolist()),
    }
    if finished.answers is not None:
        numbers["turned"] = finished.answers(lambda inputs: -inputs).std().item()
    return numbers


SECOND_BEST = Measure(
    name="v1_second_best",
    summary="the label is the second likeliest class",
    unit="%",
    better="lower",
    compute=second_best,
    tasks=("classification",),
)
SPREAD = Measure(
    name="v1_spread",
    summary="standard deviation of the logits",
    unit="",
    better=None,
    compute=spread,
    optional=True,
)
