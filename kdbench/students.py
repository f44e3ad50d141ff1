"""The network that a finished run left, with its weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from kdbench.api import Dataset, Model, UserError
from kdbench.engine.feed import Feed
from kdbench.engine.learner import Learner
from kdbench.plugins import Host
from kdbench.recording import strategy_of, weights_path
from kdbench.records import Record
from kdbench.weights import State, read_state, state_hash


def finished_student(
    record: Record,
    host: Host,
    dataset: Dataset,
    folder: Path,
    feed: Feed,
    teachers: Sequence[tuple[Model, nn.Module]],
) -> tuple[Model, nn.Module]:
    """The model of a finished run's student, and the network as it was deployed.

    In eval mode on the device of `feed`. `teachers` are the run's, of which only a
    strategy that deploys parts of its own needs the shapes. Raises UserError where the
    run did not finish, where its weights are gone or are others, and where a strategy
    with a loop of its own returned another network than its model's.
    """
    run = record.run
    if record.status != "finished":
        raise UserError(f"{run.label} {record.status}: {record.reason}")
    path = weights_path(folder, record.id)
    if not path.is_file():
        raise UserError(
            f"the weights of {run.label} are not at {path}; remove {record.id}.json "
            "beside them and run the suite again to train it anew"
        )
    state = read_state(path)
    if state_hash(state) != record.weights_sha256:
        raise UserError(
            f"{path} has other weights than the record of {run.label} names"
        )
    try:
        spec = host.compressed(run.students[0], run.compression)
        network = dataset.deployed(spec)
    except ValueError as error:  # such as a package that is missing here
        raise UserError(f"{run.label} cannot be built here: {error}") from error
    if not _fits(network, state):
        network = _as_deployed(record, host, dataset, feed, teachers)
    if not _fits(network, state):
        raise UserError(
            f"{run.label} left another network than {spec.name}: only its strategy "
            "knows which"
        )
    network.load_state_dict(dict(state))
    return spec, network.to(feed.device).eval()


def _as_deployed(
    record: Record,
    host: Host,
    dataset: Dataset,
    feed: Feed,
    teachers: Sequence[tuple[Model, nn.Module]],
) -> nn.Module:
    """The network that the run's strategy deploys, compressed as the run says."""
    run = record.run
    base = run.model_copy(update={"compression": "", "source": ""})
    strategy = strategy_of(run, host)
    if strategy.drives_itself():
        return nn.Module()
    specs = [host.model(name) for name in run.students]
    uses = range(min(strategy.teachers, len(teachers)))
    learner = Learner(base, strategy, specs, teachers, list(uses), feed, dataset)
    network = learner.student.eval()
    if specs[0].deploy:
        network = specs[0].deploy(network)
    size = (dataset.input_shape, dataset.task.outputs)
    names = run.compression.split("/") if run.compression else []
    for done in range(len(names)):
        spec = host.compressed(run.students[0], "/".join(names[: done + 1]))
        assert spec.from_teacher is not None  # noqa: S101 - compressions have one
        network = spec.from_teacher(network, *size).eval()
        if spec.deploy:
            network = spec.deploy(network).eval()
    return network


def _fits(network: nn.Module, state: State) -> bool:
    own = network.state_dict()
    if own.keys() != state.keys():
        return False
    return all(
        # what was fitted is as large as what it learned
        (own[k].shape == v.shape or k.endswith("_extra_state"))
        and own[k].dtype == v.dtype
        for k, v in state.items()
    )
