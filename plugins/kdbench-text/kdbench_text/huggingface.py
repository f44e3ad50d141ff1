"""Any Hugging Face sequence classifier in a local folder as a teacher on SST-2.

The texts are cut into tokens by the folder's own tokenizer, so that the teacher reads
what it was trained on, and students of any kind read the same ids. Nothing is fetched,
no code of the folder is run, and no weights are unpickled into anything but tensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdbench import Data, Dataset, Model, Split, UserError
from kdbench.api import Shape
from kdbench.vision import torchvision
from kdbench_text.reading import PADDING, cut_to_longest, presence
from kdbench_text.sst2 import CLASSES, LENGTH, SST2, read_splits

SAFE, UNSAFE = "model*.safetensors", "pytorch_model*.bin"
VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model")
"""Without one of these transformers makes up a tokenizer that knows no word."""
LOCAL = {"local_files_only": True, "trust_remote_code": False}
SETTINGS = ("config.json", "*_config.json", "*_map.json", "*_tokens.json", "merges.txt")


@dataclass(frozen=True, kw_only=True)
class HuggingFace:
    """A classifier (`model`), and SST-2 as it reads it (`dataset`), for a plugin."""

    dataset: Dataset
    model: Model


@dataclass(frozen=True, kw_only=True)
class Folder:
    """What is known of a classifier's folder before any weight is read.

    `padding` is its own id of padding, `vocabulary` the number of its ids. `states` are
    the (B, L, D) states that can be tapped, embeddings first; `classifier` is the path
    of the dense layer that gives the logits, "" where there is none.
    """

    path: Path
    length: int
    vocabulary: int
    padding: int
    states: int
    classifier: str


class Classifier(nn.Module):
    """(B, L) token ids, 0 being padding -> (B, 2) logits of `network`.

    `states` pass on the network's states, 0 at padding, to whoever taps them.
    """

    def __init__(self, network: nn.Module, padding: int, states: int):
        super().__init__()
        self.network = network
        self.padding = padding
        self.states = nn.ModuleList(nn.Identity() for _ in range(states))

    def forward(self, inputs: Tensor) -> Tensor:
        ids = cut_to_longest(inputs)
        present = presence(ids)
        tapped = any(place._forward_hooks for place in self.states)
        answer = _answer(self.network, ids, self.padding, tapped)
        if tapped:
            for place, states in zip(self.states, answer.hidden_states, strict=True):
                place(states * present.unsqueeze(2))
        logits: Tensor = answer.logits
        return logits


def _answer(network: Any, ids: Tensor, padding: int, tapped: bool) -> Any:
    if ids.is_meta:  # transformers looks into ids and masks, which have no data
        given = {"inputs_embeds": network.get_input_embeddings()(ids)}
    else:
        mask = presence(ids).long()
        given = {"input_ids": swapped(ids, padding), "attention_mask": mask}
    return network(**given, output_hidden_states=tapped, return_dict=True)


def huggingface(name: str, folder: str | Path, *, length: int = LENGTH) -> HuggingFace:
    """The classifier that `save_pretrained` left in `folder`, and SST-2 for it.

    As a teacher the model `name` is loaded and measured, not trained. The dataset
    `sst2-<name>` has (N, length) ids of the folder's tokenizer; 0 and its padding's id
    change places. Raises UserError where transformers is not installed, and where the
    folder has no classifier of two classes, no weights, no tokenizer with padding, or
    fewer positions than `length`.
    """
    path = Path(folder).expanduser().absolute()
    if not path.is_dir():
        raise UserError(f"{name}: no folder {path}; give the one that has config.json")
    if length < 1:
        raise UserError(f"{name}: length must be at least 1, not {length}")
    with _transformers() as hf:
        config = _config(hf, path)
        tokenizer = _tokenizer(hf, path)
        known = _examined(hf, config, tokenizer, path, length)
    states = ("embeddings", *(f"stage{k}" for k in range(1, known.states)))
    taps = {states[k]: f"states.{k}" for k in range(known.states)}
    if known.classifier:
        taps["pooled"] = f"{known.classifier}:input"
    model = Model(
        name=name,
        summary=f"{config.architectures[0]} from {path.name}, trained elsewhere",
        build=partial(_build, known),
        taps=taps,
        classifier=known.classifier,
        tokens=True,
        weights=partial(_weights, known),
        version=_version(known),
    )
    texts = Dataset(
        name=f"sst2-{name}",
        summary=f"{SST2.summary}, in the tokens of {name}",
        source=SST2.source,
        task=SST2.task,
        input_shape=(length,),
        # With the model, so that its version, that of the tokenizer too, is the data's.
        load=partial(_load, known, model),
        vocabulary=known.vocabulary,
    )
    return HuggingFace(dataset=texts, model=model)


def swapped(ids: Tensor, padding: int) -> Tensor:
    """The ids with 0 and `padding` in each other's place; twice is as before."""
    others = torch.where(ids == padding, PADDING, ids)
    return torch.where(ids == PADDING, padding, others)


@contextmanager
def _transformers() -> Iterator[Any]:
    """The library, keeping its warnings and progress bars to itself."""
    # Before transformers, which imports it by itself and would fail where it is broken.
    torchvision("transforms")
    try:
        hf = import_module("transformers")
    except ImportError as error:
        what = f"transformers cannot be imported ({error})"
        raise UserError(f"{what}; pip install 'kdbench-text[hf]'") from error
    log = hf.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield hf
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


@contextmanager
def _blaming(what: str) -> Iterator[None]:
    """Make a UserError about `what` out of anything that is raised."""
    try:
        yield
    except Exception as error:
        raise UserError(f"{what}: {error}") from error


def _config(hf: Any, path: Path) -> Any:
    with _blaming(f"{path}: config.json cannot be used"):
        config = hf.AutoConfig.from_pretrained(path, **LOCAL)
    kind = (config.architectures or ["none"])[0]
    if not kind.endswith("ForSequenceClassification") or config.is_encoder_decoder:
        raise UserError(
            f"{path} holds no sequence classifier without a decoder (architecture "
            f"{kind}); give one fine-tuned on SST-2 (ForSequenceClassification)"
        )
    if config.num_labels != CLASSES:
        raise UserError(
            f"{path} tells {config.num_labels} labels apart, and SST-2 has {CLASSES}; "
            "give a classifier trained on SST-2"
        )
    if str(config.id2label[0]).lower().startswith("pos"):
        raise UserError(
            f"{path}: label 0 is {config.id2label[0]}, not negative; train it anew"
        )
    return config


def _tokenizer(hf: Any, path: Path) -> Any:
    if not _files(path, *VOCABULARIES):
        raise UserError(
            f"{path} has no tokenizer ({', '.join(VOCABULARIES)}); "
            "save it there with tokenizer.save_pretrained"
        )
    with _blaming(f"{path}: its tokenizer cannot be used"):
        tokenizer = hf.AutoTokenizer.from_pretrained(path, **LOCAL)
    if tokenizer.pad_token_id is None:
        raise UserError(f"{path}: its tokenizer has no pad_token; set one and save it")
    if any(tokenizer("a film").get("token_type_ids", ())):
        raise UserError(f"{path}: token types other than 0 are not supported")
    return tokenizer


def _examined(hf: Any, config: Any, tokenizer: Any, path: Path, length: int) -> Folder:
    """Build the network without data, and see what can be tapped."""
    if not _files(path, SAFE, UNSAFE):
        raise UserError(f"{path} has no weights ({SAFE} or {UNSAFE})")
    with _blaming(f"{path}: its network cannot be built"), torch.device("meta"):
        network = _network(hf, config)
    positions = _positions(network, config)
    if positions is not None and length > positions:
        raise UserError(
            f"{path} reads at most {positions} tokens; give length={positions} or less"
        )
    words = 1 + max(tokenizer.get_vocab().values())  # ids may have gaps
    known = network.get_input_embeddings().num_embeddings
    if words > known:
        raise UserError(
            f"{path}: the tokenizer has {words} ids and the network {known}; save the "
            "tokenizer that it was trained with"
        )
    pooled: dict[str, int] = {}  # dimensions of what the last dense layer reads
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear) and module.out_features == CLASSES:
            module.register_forward_pre_hook(
                lambda _m, args, name=name: pooled.update({name: args[0].ndim})
            )
    blaming = _blaming(f"{path}: its network cannot run without data")
    with blaming, torch.device("meta"), torch.no_grad():
        ids = torch.ones(2, length, dtype=torch.int64)
        answer = _answer(network, ids, PADDING, True)
    states = answer.hidden_states or ()
    heads = ["", *(f"network.{name}" for name, ndim in pooled.items() if ndim == 2)]
    return Folder(
        path=path,
        length=length,
        vocabulary=words,
        padding=tokenizer.pad_token_id,
        states=len(states) if all(x.shape[:2] == ids.shape for x in states) else 0,
        classifier=heads[-1],
    )


def _positions(network: nn.Module, config: Any) -> int | None:
    """How many tokens it can read; None where there is no limit."""
    for path, module in network.named_modules():
        if path.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa and its kin count from the one after padding's id.
            skipped = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - skipped
    most = getattr(config, "max_position_embeddings", None)
    return most if isinstance(most, int) and most > 0 else None


def _files(path: Path, *patterns: str) -> list[Path]:
    return sorted({file for pattern in patterns for file in path.glob(pattern)})


def _version(folder: Folder) -> str:
    """Hash of the length and of every file that decides an id or a logit."""
    weights = _files(folder.path, SAFE) or _files(folder.path, UNSAFE)
    total = hashlib.sha256(str(folder.length).encode())
    for path in (*weights, *_files(folder.path, *SETTINGS, *VOCABULARIES)):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"\n{path.name} {content}".encode())
    return total.hexdigest()[:16]


def _network(hf: Any, config: Any) -> Any:
    return hf.AutoModelForSequenceClassification.from_config(
        config,
        dtype=torch.float32,  # whatever it was saved in; the recipe has the precision
        attn_implementation="eager",  # MACs can be counted, and shapes need no data
        trust_remote_code=False,
    )


def _build(folder: Folder, shape: Shape, outputs: int, vocabulary: int) -> Classifier:
    """The folder's architecture, freshly initialised."""
    own = ((folder.length,), CLASSES, folder.vocabulary)
    if (shape, outputs, vocabulary) != own:
        raise UserError(
            f"{folder.path.name} has shape, outputs and vocabulary {own}, not "
            f"{(shape, outputs, vocabulary)}; use huggingface()'s dataset with it"
        )
    with _transformers() as hf:
        network = _network(hf, _config(hf, folder.path))
    return Classifier(network, folder.padding, folder.states)


def _weights(folder: Folder) -> dict[str, Tensor]:
    """The trained state for what `_build` gives, in float32."""
    with _transformers() as hf, _blaming(f"{folder.path}: weights cannot be loaded"):
        network, report = hf.AutoModelForSequenceClassification.from_pretrained(
            folder.path,
            dtype=torch.float32,
            use_safetensors=bool(_files(folder.path, SAFE)),
            weights_only=True,
            output_loading_info=True,
            **LOCAL,
        )
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"{folder.path}: the weights of {missing[0]} are missing "
            f"({len(missing)} in all); fine-tune and save it again"
        )
    return {f"network.{name}": value for name, value in network.state_dict().items()}


def _load(folder: Folder, reader: Model, data_dir: Path | None, download: bool) -> Data:
    """SST-2 as the reader's ids, (N, length); the same files and rules as `sst2`."""
    train, test, notes = read_splits(data_dir, download)
    with _transformers() as hf:
        tokenizer = _tokenizer(hf, folder.path)
    splits = {}
    for name, part in (("training", train), ("test", test)):
        inputs, cut = _encode(tokenizer, part.texts, folder)
        splits[name] = Split(inputs=inputs, targets=torch.from_numpy(part.labels))
        if cut:
            notes.append(
                f"{cut:,} of {len(inputs):,} {name} texts were longer than "
                f"{folder.length} tokens of {reader.name} and were cut"
            )
    return Data(train=splits["training"], test=splits["test"], notes=tuple(notes))


def _encode(tokenizer: Any, texts: list[str], folder: Folder) -> tuple[Tensor, int]:
    """(N, length) ids, padded with 0, and how many texts were cut to fit."""
    ids = torch.full((len(texts), folder.length), folder.padding)
    cut = 0
    # verbose: no warning of texts that are too long, which are cut below.
    limits = {"truncation": True, "max_length": folder.length}
    for row, own in enumerate(tokenizer(texts, verbose=False)["input_ids"]):
        if len(own) > folder.length:  # again, so that its end mark is kept
            own = tokenizer(texts[row], **limits)["input_ids"]
            cut += 1
        # A text that says the padding token is read without it.
        own = torch.tensor([token for token in own if token != folder.padding])
        ids[row, : len(own)] = own
    return swapped(ids, folder.padding), cut
