"""SST-2, the Stanford Sentiment Treebank with two classes. Socher et al. 2013.

From the hub's parquet layout or from GLUE's own files. The vocabulary is learned from
the training split alone, each time the data are loaded: a second of work, and nothing
that could go stale or leak.
"""

from __future__ import annotations

from pathlib import Path

import torch

from kdbench import Data, Dataset, Split, Task, UserError
from kdbench_text.files import Texts, read_parquet, read_tsv
from kdbench_text.tokens import encode, learn_vocabulary

CLASSES = 2
"""0 negative, 1 positive."""
VOCABULARY = 4096
"""Token ids. Measured: with 1,000 or 2,048 a mean of word vectors is 1.5 to 4 points
worse, with 8,192 no better."""
LENGTH = 64
"""Tokens kept of a text: 16 of the 6,920 training texts have more."""

LAYOUT = """expected in the folder that --data-dir or KDBENCH_DATA names either
    sst2/train-*.parquet and sst2/test-*.parquet (or validation-*.parquet), or
    SST-2/train.tsv and SST-2/dev.tsv (GLUE's own layout)"""


def load(data_dir: Path | None, download: bool) -> Data:
    """The sentences of `read_splits` as (N, 64) token ids.

    An empty text of the test split, where every item counts, is one token.
    """
    train, test, notes = read_splits(data_dir, download)
    tokenizer = learn_vocabulary(train.texts, VOCABULARY)
    splits = {}
    for name, part in (("training", train), ("test", test)):
        inputs, cut = encode(tokenizer, part.texts, LENGTH)
        splits[name] = Split(inputs=inputs, targets=torch.from_numpy(part.labels))
        if cut:
            notes.append(
                f"{cut:,} of {len(inputs):,} {name} texts were longer than {LENGTH} "
                "tokens and were cut"
            )
    return Data(train=splits["training"], test=splits["test"], notes=tuple(notes))


def read_splits(
    data_dir: Path | None, download: bool
) -> tuple[Texts, Texts, list[str]]:
    """Training and test sentences of `<data_dir>/sst2` or `<data_dir>/SST-2`, notes.

    The test split is the labelled test file; where that has no labels, the validation
    file, and the notes say so. Raises UserError where files are missing, unreadable or
    not what they should be, and for an empty text in the training split.
    """
    if data_dir is None:
        raise UserError(f"dataset 'sst2' needs files;\n  {LAYOUT}")
    train, test, notes = _splits(data_dir, download)
    train.no_empty_ones()
    if len(set(train.labels.tolist())) < CLASSES:
        raise UserError(
            f"dataset 'sst2' in {data_dir}: all training labels are "
            f"{train.labels[0]}; fetch the files again"
        )
    return train, test, notes


def _splits(data_dir: Path, download: bool) -> tuple[Texts, Texts, list[str]]:
    folder, glue = data_dir / "sst2", data_dir / "SST-2"
    files = {
        part: sorted(folder.glob(f"{part}-*.parquet"))
        for part in ("train", "test", "validation")
    }
    if files["train"]:
        train = _labelled(read_parquet(files["train"], CLASSES))
        return train, *_test_of(folder, files["test"], files["validation"])
    if (glue / "train.tsv").is_file():
        train = read_tsv(glue / "train.tsv", CLASSES)
        test = _labelled(read_tsv(glue / "dev.tsv", CLASSES))
        note = "the test split is GLUE's dev.tsv: GLUE's own test labels are not public"
        return _labelled(train), test, [note]
    cannot = "; --download cannot fetch it" if download else ""
    raise UserError(f"dataset 'sst2' not found in {data_dir}{cannot};\n  {LAYOUT}")


def _test_of(
    folder: Path, test: list[Path], validation: list[Path]
) -> tuple[Texts, list[str]]:
    if test:
        found = read_parquet(test, CLASSES)
        if found.labelled:
            return found, []
    if not validation:
        why = "has no labels" if test else "is missing"
        raise UserError(
            f"dataset 'sst2' in {folder}: the test file {why}, and there is no "
            f"validation file to use instead;\n  {LAYOUT}"
        )
    why = "the test file has no labels" if test else "there is no test file"
    note = f"the test split is the validation file: {why}"
    return _labelled(read_parquet(validation, CLASSES)), [note]


def _labelled(part: Texts) -> Texts:
    if not part.labelled:
        raise UserError(f"{part.places[0]}: no text of this split has a label (all -1)")
    return part


SST2 = Dataset(
    name="sst2",
    summary="6,920 / 1,821 sentences of film reviews, positive or negative",
    source="Socher et al. 2013 (SST-2, full sentences)",
    task=Task(outputs=CLASSES, labels=("negative", "positive")),
    input_shape=(LENGTH,),
    load=load,
    vocabulary=VOCABULARY,
)
