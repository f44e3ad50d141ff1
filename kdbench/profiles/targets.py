"""The network that a user names: a model, a finished run, or a file of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kdbench.api import Dataset, Model, UserError, unknown
from kdbench.data.checks import loaded
from kdbench.engine.feed import Feed
from kdbench.exporting.runs import find, only_folder, title_of
from kdbench.listing import SIZED_BY
from kdbench.plugins import Host
from kdbench.recording import weights_path
from kdbench.records import Record
from kdbench.store import read_record
from kdbench.students import finished_student
from kdbench.weights import Imported, read, read_state, state_hash

RESULTS = Path("results")


@dataclass(frozen=True)
class Target:
    """A network in eval mode on the CPU, and the dataset whose items it takes."""

    title: str
    model: str
    dataset: Dataset
    module: nn.Module


@dataclass(frozen=True)
class Finder:
    """Finds networks by what a user calls them.

    `dataset` gives a model by name its inputs and outputs; `folder` holds the runs.
    """

    host: Host
    dataset: str | None = None
    folder: Path | None = None
    data_dir: Path | None = None

    def find(self, text: str) -> Target:
        """A model's name, NAME/COMPRESSION, a run (as `exporting.runs.find` has it), a
        record's .json, or a .safetensors file that kdbench wrote.

        Raises UserError for what is none of them, or cannot be built.
        """
        path = Path(text)
        if path.suffix == ".safetensors":
            return self._weights(path)
        if path.suffix == ".json":
            return self._record(path)
        name, _, chain = text.partition("/")
        if self._is_model(name):
            spec = self.host.compressed(name, chain)
            return self._model(text, spec)
        folder = self._folder(text)
        return self._run(find(folder, text), folder)

    def _is_model(self, name: str) -> bool:
        prefixes = [offer.thing.name for offer in self.host.sources("models")]
        return name in self.host.names("models") or name.partition(":")[0] in prefixes

    def _folder(self, text: str) -> Path:
        """Where runs are looked for. UserError where there is no such place."""
        if self.folder is not None:
            return self.folder
        try:
            return only_folder(RESULTS)
        except UserError as error:
            known = self.host.names("models")
            what = unknown("model", text, known)
            raise UserError(f"{what}\n  nor is it a run: {error}") from None

    def _model(self, title: str, spec: Model) -> Target:
        """Freshly initialised: what it weighs and how fast it is are the same."""
        if spec.learner == "fitted":
            raise UserError(
                f"model {title!r} is as large and fast as what it learned; name a run "
                "that has fitted it"
            )
        dataset = self.host.dataset(self.dataset or SIZED_BY)
        return Target(title, spec.name, dataset, built(spec, dataset))

    def _record(self, path: Path) -> Target:
        if not path.is_file():
            raise UserError(f"no file {path}; check the path")
        record = read_record(path)
        if not isinstance(record, Record):
            raise UserError(
                f"{path} holds the speed of {record.model!r} and no weights; name the "
                "model itself"
            )
        return self._run(record, path.parent)

    def _run(self, record: Record, folder: Path) -> Target:
        """A finished run's network, with its weights."""
        run = record.run
        dataset = self._own_dataset(title_of(run), run.dataset)
        spec = self.host.compressed(run.students[0], run.compression)
        path = weights_path(folder, record.id)
        if record.status == "finished" and path.is_file():
            state = read_state(path)
            network = built(spec, dataset)
            if state_hash(state) == record.weights_sha256 and _takes(network, state):
                return Target(title_of(run), spec.name, dataset, network)
        # Its strategy deploys another network, which takes the data to make; or it is
        # not as its record says, and this tells how.
        teachers = [self.host.model(name) for name in run.teachers]
        feed = Feed(
            loaded(dataset, self.data_dir, False),
            dataset.task,
            run.recipe,
            run.seed,
            torch.device("cpu"),
        )
        _, network = finished_student(
            record,
            self.host,
            dataset,
            folder,
            feed,
            [(teacher, built(teacher, dataset)) for teacher in teachers],
        )
        return Target(title_of(run), spec.name, dataset, network)

    def _weights(self, path: Path) -> Target:
        """A teacher's file, or a student's beside its record."""
        beside = path.parent.parent / f"{path.stem}.json"
        if path.parent.name == "weights" and beside.is_file():
            return self._record(beside)
        try:
            card, state = read(path)
        except UserError as error:
            raise UserError(
                f"{error}\n  to profile its architecture alone, give the model's name"
            ) from None
        if isinstance(card, Imported):
            model, named = card.model, card.dataset
        else:
            model, named = card.record.run.students[0], card.record.run.dataset
        dataset = self._own_dataset(str(path), named)
        network = built(self.host.model(model), dataset)
        if not _takes(network, state):
            raise UserError(
                f"{path} holds a {model} of another version: the weights do not fit "
                "this one"
            )
        return Target(path.name, model, dataset, network)

    def _own_dataset(self, title: str, name: str) -> Dataset:
        if self.dataset not in (None, name):
            raise UserError(
                f"{title} was trained on {name}, not on {self.dataset}: --dataset is "
                "for models given by name"
            )
        return self.host.dataset(name)


def built(spec: Model, dataset: Dataset) -> nn.Module:
    """The model for these data as it is deployed, freshly initialised.

    Raises UserError for one that cannot take them.
    """
    try:
        network = dataset.build(spec).eval()
        return spec.deploy(network).eval() if spec.deploy else network
    except Exception as error:
        raise UserError(
            f"model {spec.name!r} cannot be built for {dataset.name!r}, inputs of "
            f"{dataset.input_shape}: {error}\n  give other inputs with --dataset"
        ) from error


def _takes(network: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Load the weights; whether they are this network's."""
    try:
        network.load_state_dict(dict(state))
    except RuntimeError:  # names or shapes are others
        return False
    return state_hash(network.state_dict()) == state_hash(state)  # types, too
