"""The network that a user names: a model, a finished run, or a file of weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kdbench.api import Dataset, Model, UserError, unknown
from kdbench.data.checks import loaded
from kdbench.engine.feed import Feed
from kdbench.exporting.page import ABOUT
from kdbench.exporting.runs import NoRun, find, only_folder, title_of
from kdbench.forms.files import FORMS
from kdbench.listing import SIZED_BY
from kdbench.plugins import Host
from kdbench.recording import weights_path
from kdbench.records import Record, Run, SpeedRecord
from kdbench.store import read_record
from kdbench.students import finished_student
from kdbench.weights import Imported, is_safetensors, read, read_state, state_hash

RESULTS = Path("results")
OTHER_INPUTS = "\n  give other inputs with --dataset"
FILES = (
    "profile reads a run's .json, and .safetensors files of `kdbench teacher export`, "
    "beside a run's record, or of `kdbench export` with student.json beside it; for an "
    "architecture alone, give the model's name"
)


@dataclass(frozen=True)
class Target:
    """A network in eval mode on the CPU, and the dataset whose items it takes.

    One given `by_name` could take another's.
    """

    title: str
    model: str
    dataset: Dataset
    module: nn.Module
    by_name: bool = False


@dataclass(frozen=True)
class Finder:
    """Finds networks by what a user calls them.

    `dataset` gives a model by name its inputs and outputs; `folder` holds the runs,
    whose names come before models' then.
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
        if not text:
            raise UserError("an empty name; give that of a model, a run or a file")
        path = Path(text)
        if path.suffix == ".safetensors":
            return self._weights(path)
        if path.suffix == ".json":
            return self._record(path)
        name, _, chain = text.partition("/")
        is_model = self._is_model(name)
        if is_model and self.folder is None:
            return self._model(name, chain)
        try:
            folder = self.folder or only_folder(RESULTS)
            record = find(folder, text)
        except NoRun as error:
            if is_model:
                return self._model(name, chain)
            raise self._nothing(text, error) from None
        return self._run(record, folder)

    def _is_model(self, name: str) -> bool:
        prefixes = [offer.thing.name for offer in self.host.sources("models")]
        return name in self.host.names("models") or name.partition(":")[0] in prefixes

    def _nothing(self, text: str, why: NoRun) -> UserError:
        """The error for what is neither a model nor a run: it may be a path."""
        path = Path(text)
        if path.is_dir():
            return UserError(
                f"{text} is a folder; name a run in it with --from {text}, or a file"
            )
        if path.is_file():
            kind = f"{path.suffix} files" if path.suffix else "files without a suffix"
            return UserError(f"{text}: profile does not read {kind}; {FILES}")
        words = str(why)
        if self.folder is None:
            model = unknown("model", text, self.host.names("models"))
            words = f"{model}\n  nor is it a run: {why}"
        if path.suffix or "/" in text:
            words = f"no file {text}, and {words}"
        return UserError(words)

    def _model(self, name: str, chain: str) -> Target:
        """Freshly initialised: what it weighs and how fast it is are the same."""
        title = f"{name}/{chain}" if chain else name
        spec = self.host.compressed(name, chain)
        if spec.learner == "fitted":
            raise UserError(
                f"model {title!r} is as large and fast as what it learned; name a run "
                "that has fitted it"
            )
        dataset = self.host.dataset(self.dataset or SIZED_BY)
        try:
            network = built(spec, dataset)
        except UserError as error:
            if self._takes_inputs(name, dataset):  # its compression is what fails
                raise
            raise UserError(f"{error}{OTHER_INPUTS}") from error
        return Target(title, spec.name, dataset, network, by_name=True)

    def _takes_inputs(self, name: str, dataset: Dataset) -> bool:
        """Whether these inputs are not why a model cannot be built."""
        try:
            built(self.host.model(name), dataset)
        except UserError as error:
            return isinstance(error.__cause__, ImportError)
        return True

    def _record(self, path: Path) -> Target:
        if not path.is_file():
            raise UserError(f"no file {path}; check the path")
        record = read_record(path)
        if not isinstance(record, Record):
            held = "a strategy"
            if isinstance(record, SpeedRecord):
                held = f"the speed of {record.model!r}"
            raise UserError(
                f"{path} describes {held} and holds no weights; name the model itself"
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
        """A teacher's file, a student's beside its record, or an exported student."""
        beside = path.parent.parent / f"{path.stem}.json"
        if path.parent.name == "weights" and beside.is_file():
            return self._record(beside)
        if not is_safetensors(path):
            raise UserError(f"{path} is not a safetensors file\n  {FILES}")
        if path.name == FORMS["safetensors"].file and path.with_name(ABOUT).is_file():
            return self._exported(path)
        try:
            card, state = read(path)
        except UserError as error:
            what = str(error).partition("; ")[0]  # the rest is about other commands
            raise UserError(f"{what}\n  {FILES}") from None
        if isinstance(card, Imported):
            model, named = card.model, card.dataset
        else:
            model, named = card.record.run.students[0], card.record.run.dataset
        dataset = self._own_dataset(str(path), named)
        network = _filled(self.host.model(model), dataset, state, path)
        return Target(path.name, model, dataset, network)

    def _exported(self, path: Path) -> Target:
        """What `kdbench export` wrote; student.json beside it says what it is."""
        run = _run_of(path.with_name(ABOUT))
        dataset = self._own_dataset(title_of(run), run.dataset)
        spec = self.host.compressed(run.students[0], run.compression)
        network = _filled(spec, dataset, read_state(path), path)
        return Target(title_of(run), spec.name, dataset, network)

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
        return dataset.deployed(spec)
    except Exception as error:
        raise UserError(
            f"model {spec.name!r} cannot be built for {dataset.name!r}, inputs of "
            f"{dataset.input_shape}: {error}"
        ) from error


def _filled(
    spec: Model, dataset: Dataset, state: Mapping[str, Tensor], path: Path
) -> nn.Module:
    """The model with the weights of a file. UserError where they do not fit."""
    network = built(spec, dataset)
    if not _takes(network, state):
        raise UserError(
            f"{path} holds a {spec.name} of another version: the weights do not fit "
            "this one"
        )
    return network


def _run_of(about: Path) -> Run:
    """The run that an export's student.json names. UserError where it names none."""
    try:
        run = json.loads(about.read_text(encoding="utf-8"))["run"]
        plain = {key: value for key, value in run.items() if key != "id"}
        return Run.model_validate(plain)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        why = str(error).partition("\n")[0]
        raise UserError(
            f"{about} is not what `kdbench export` of this version writes ({why}); "
            "export the run again"
        ) from error


def _takes(network: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Load the weights; whether they are this network's."""
    try:
        network.load_state_dict(dict(state))
    except RuntimeError:  # names or shapes are others
        return False
    return state_hash(network.state_dict()) == state_hash(state)  # types, too
