"""Checks of a model: what it answers, and whether it trains."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from safetensors.torch import load as from_bytes
from torch import Tensor, nn

from kdbench.api import Dataset, Model
from kdbench.conformance.beside import home_of, once, standard
from kdbench.conformance.checks import Broken, DoesNotApply, check
from kdbench.conformance.targets import OfferSubject
from kdbench.conformance.tried import Trial
from kdbench.conformance.untouched import watching
from kdbench.engine.feed import Feed
from kdbench.measure.size import serialised
from kdbench.pairing import is_fitted
from kdbench.plugins import Host
from kdbench.records import Recipe
from kdbench.tasks import label_loss, label_target

ITEMS = 16

TOLERANCE = 1e-4
"""How far an answer may be another in another batch, relative to the largest: kernels
for other sizes add up in another order."""


@dataclass
class Tried:
    """The model, built for data that it takes, with a batch of them.

    A fitted one has learned them. `network` is in eval mode; checks take a copy.
    """

    model: Model
    dataset: Dataset
    network: nn.Module
    inputs: Tensor
    targets: Tensor

    def fresh(self) -> nn.Module:
        return copy.deepcopy(self.network)

    @property
    def fitted(self) -> bool:
        return is_fitted(self.model)


@once
def _home(subject: OfferSubject) -> tuple[Dataset | None, dict[str, str]]:
    return home_of(subject.host, [subject.offer.thing])


@once
def _tried(subject: OfferSubject) -> Tried:
    model, dataset = subject.offer.thing, _home(subject)[0]
    if dataset is None:
        raise DoesNotApply("it takes no data, see `builds`")
    data = dataset.load(None, False)
    recipe = Recipe(batch_size=ITEMS)
    feed = Feed(data, dataset.task, recipe, 0, torch.device("cpu"))
    batch = next(feed.in_order())
    network = built(dataset, model)
    if is_fitted(model):
        network.fit(batch.inputs, label_target(dataset.task, batch.targets))  # type: ignore[operator] # what such a model has
    few = slice(ITEMS)
    return Tried(model, dataset, network.eval(), batch.inputs[few], batch.targets[few])


def tried(subject: OfferSubject) -> Tried:
    """The model on trial, where it answers as it must."""
    found = _tried(subject)
    if _wrong_answer(subject):
        raise DoesNotApply("its answers are none, see `builds`")
    return found


def built(dataset: Dataset, model: Model, seed: int = 0) -> nn.Module:
    """Built from this state of torch's generator, which is put back."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return dataset.build(model)


def networks(subject: OfferSubject) -> Tried:
    """The model on trial, where it is a network."""
    found = tried(subject)
    if found.fitted:
        raise DoesNotApply("it is fitted without gradients")
    return found


@check(
    "model",
    what="It can be built for images, vectors or tokens of some size, also on the "
    "device meta, and answers with (B, outputs) float32, a batch of one item too.",
    why="The engine builds it on meta to find the shapes of its taps before anything "
    "is trained; a loss takes (B, outputs) and nothing else.",
    fix="build(input_shape, outputs[, vocabulary]) raises ValueError for inputs that "
    "it cannot take. Answer with the logits alone (no tuple), and use len(inputs) for "
    "the size of the batch and inputs.device for new tensors.",
)
def builds(subject: OfferSubject) -> None:
    dataset, reasons = _home(subject)
    if dataset is None:
        said = "; ".join(f"{where}: {why}" for where, why in reasons.items())
        raise Broken(f"it takes none of the data there are ({said})")
    wrong = _wrong_answer(subject)
    if wrong:
        raise Broken(wrong)


@once
def _wrong_answer(subject: OfferSubject) -> str | None:
    """What is wrong with its answers, in eval mode and in training."""
    found = _tried(subject)
    outputs = found.dataset.task.outputs
    cases = [(False, items) for items in (1, 2, ITEMS)]
    cases += [] if found.fitted else [(True, ITEMS)]
    for training, items in cases:
        where = f"in {'training' if training else 'eval mode'}, given {items} items, it"
        try:
            with torch.random.fork_rng(), torch.no_grad():
                answer = found.fresh().train(training)(found.inputs[:items])
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            return f"{where} raises {type(error).__name__}: {error}"
        wrong = _odd(answer, items, outputs)
        if wrong:
            return f"{where} answers with {wrong}"
    return None


def _odd(answer: object, items: int, outputs: int) -> str | None:
    if not isinstance(answer, Tensor):
        return f"a {type(answer).__name__} and not a tensor"
    if answer.shape != (items, outputs):
        return f"{tuple(answer.shape)} and not {(items, outputs)}"
    if answer.dtype != torch.float32:
        return f"{answer.dtype} and not float32"
    return None if answer.isfinite().all() else "numbers that are not finite"


@check(
    "model",
    what="In eval mode, the answer for an item does not depend on the other items of "
    "its batch.",
    why="Accuracy would depend on the order and the size of the test batches, and a "
    "deployed student is given one item at a time.",
    fix="Use nn.BatchNorm (not F.batch_norm(training=True), nor "
    "track_running_stats=False), and normalise within an item: no .mean(0) over the "
    "batch.",
)
def own_item(subject: OfferSubject) -> None:
    found = tried(subject)
    network = found.fresh()
    with torch.no_grad():
        together = network(found.inputs)
        parts = [network(found.inputs[k : k + 1]) for k in range(ITEMS)]
    apart = (together - torch.cat(parts)).abs().amax(1)
    allowed = TOLERANCE * max(1.0, float(together.abs().max()))
    if float(apart.max()) > allowed:
        k = int(apart.argmax())
        raise Broken(
            f"item {k} alone is answered with {_shown(parts[k][0])}, and in a batch of "
            f"{ITEMS} with {_shown(together[k])}"
        )


def _shown(row: Tensor) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in row[:4].tolist()) + ")"


@check(
    "model",
    what="Every trainable parameter gets a gradient from the loss of its logits.",
    why="One that gets none stays as it was drawn: it is counted as a parameter, and "
    "is either not used or cut off by mistake (detach, no_grad, argmax).",
    fix="Remove layers that the forward pass does not use, or freeze what is meant to "
    "stay: parameter.requires_grad_(False), or a buffer.",
)
def gradients(subject: OfferSubject) -> None:
    found = networks(subject)
    network = found.fresh().train()
    wanted = {n: p for n, p in network.named_parameters() if p.requires_grad}
    if not wanted:
        raise DoesNotApply("it has no trainable parameters")
    with torch.random.fork_rng():
        answer = network(found.inputs)
    torch.autograd.backward(label_loss(found.dataset.task, answer, found.targets))
    idle = [name for name, p in wanted.items() if p.grad is None]
    if idle:
        raise Broken(f"no gradient reaches {_several(idle)}")
    odd = [n for n, p in wanted.items() if not p.grad.isfinite().all()]  # type: ignore[union-attr]
    if odd:
        raise Broken(f"the gradient of {_several(odd)} is not finite")


def _several(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


@check(
    "model",
    what="Building it twice from one state of torch's generator gives the same "
    "weights, and neither building nor training uses another generator or changes a "
    "setting.",
    why="All strategies of a seed start from the same weights, which torch's generator "
    "alone decides; a generator of Python or NumPy goes on from whoever ran before.",
    fix="Draw by torch alone (torch.randn, nn.init...), do not seed it, and set no "
    "default dtype or number of threads.",
)
def own_randomness(subject: OfferSubject) -> None:
    found = tried(subject)
    with watching() as left:
        first = built(found.dataset, found.model)
        if not found.fitted:
            found.fresh().train()(found.inputs)
    left.refuse("building or training it", but=("torch",))
    second = built(found.dataset, found.model).state_dict()
    differ = [
        name
        for name, value in first.state_dict().items()
        if not torch.equal(value, second[name])
    ]
    if differ:
        raise Broken(f"built twice from one seed, {_several(differ)} differ")


@check(
    "model",
    what="Its state, kept as a file and loaded into another of its kind, gives the "
    "same answers.",
    why="Teachers, finished students and checkpoints are read back so; what is not in "
    "the state is lost, and a shared tensor cannot be kept at all.",
    fix="Keep everything that is learned in parameters and buffers (register_buffer), "
    "or in the extra state; give no tensor two names.",
)
def round_trip(subject: OfferSubject) -> None:
    found = tried(subject)
    network = found.fresh()
    if not found.fitted:  # so that running statistics are not those of the start
        with torch.no_grad(), torch.random.fork_rng():
            network.train()(found.inputs)
    network.eval()
    again = built(found.dataset, found.model, seed=1).eval()
    again.load_state_dict(from_bytes(serialised(network)))
    with torch.no_grad():
        one, other = network(found.inputs), again(found.inputs)
    if not torch.equal(one, other):
        apart = float((one - other).abs().max())
        raise Broken(f"what was read back answers otherwise, by up to {apart:.3g}")


@check(
    "model",
    what="It trains for an epoch as a student on the labels, and is measured and kept.",
    why="That is what every suite does with it, by the engine's own loop.",
    fix="What is said is the engine's. A model made from_teacher is tried with the "
    "teacher of a pair that names it.",
)
def trains(subject: OfferSubject) -> None:
    found = tried(subject)
    model = found.model
    teacher = standard(found.dataset)
    if model.from_teacher is not None:
        teacher = _teacher_of(subject.host, model)
    Trial(found.dataset, teacher, model).record()


def _teacher_of(host: Host, model: Model) -> Model:
    for offer in host.all("pairs"):
        if model.name in offer.thing.students:
            return host.model(offer.thing.teachers[0])
    raise DoesNotApply("it is made from a teacher, and no pair says from which")
