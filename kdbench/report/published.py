"""Published top-1 numbers, under kdbench's own names.

`published.csv` beside this file stays as it was collected: one row for each number,
with its source and which epoch that source reports. The tables here turn its words into
kdbench's; a row that has no place among them is kept apart, with the reason.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DATASETS = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "ImageNet": "imagenet"}

CIFAR_MODELS = {
    "resnet20": "resnet20",
    "resnet32": "resnet32",
    "resnet56": "resnet56",
    "resnet110": "resnet110",
    "resnet8x4": "resnet8x4",
    "resnet32x4": "resnet32x4",
    "resnet-20": "resnet20",
    "resnet-110": "resnet110",
    "ResNet50": "resnet50",
    "wrn-16-2": "wrn_16_2",
    "wrn-40-1": "wrn_40_1",
    "wrn-40-2": "wrn_40_2",
    "vgg8": "vgg8",
    "vgg13": "vgg13",
    "MobileNetV2": "mobilenetv2",
    "ShuffleNetV1": "shufflenetv1",
    "ShuffleNetV2": "shufflenetv2",
}
"""As published -> the model's name in kdbench, on CIFAR."""

IMAGENET_MODELS = {
    "ResNet18": "resnet18",
    "ResNet34": "resnet34",
    "ResNet50": "resnet50",
    "ResNet101": "resnet101",
    "ResNet152": "resnet152",
    "MobileNetV1": "mobilenetv1",
}
"""As published -> the model's name in the names of kdbench's pairs, on ImageNet."""

MODELS = {
    "cifar10": CIFAR_MODELS,
    "cifar100": CIFAR_MODELS,
    "imagenet": IMAGENET_MODELS,
}

STRATEGIES = {
    "AB": "ab",
    "AT": "at",
    "CRD": "crd",
    "CTKD": "ctkd",
    "DIST": "dist",
    "DKD": "dkd",
    "FSP": "fsp",
    "FT": "ft",
    "FitNet": "fitnet",
    "Fitnet": "fitnet",
    "IRG": "irg",
    "KD": "kd",
    "KD w/ LS": "logit_standardization",
    "KD+CTKD": "ctkd",
    "KD+LS": "logit_standardization",
    "KR": "reviewkd",  # knowledge review
    "Logits": "logit_mse",
    "MLKD": "mlkd",
    "NST": "nst",
    "OFD": "ofd",
    "PKT": "pkt",
    "RKD": "rkd",
    "ReviewKD": "reviewkd",
    "SP": "sp",
    "SRRL": "srrl",
    "ST": "kd",  # soft target
    "Tf-KD": "tf_kd",
    "VID": "vid",
    "WSLD": "wsld",
}
"""As published -> the strategy's name. Any other method is shown by its own name."""

EPOCHS = {
    "last": "last epoch",
    "best-on-test": "best test epoch",
    "best-val": "best validation epoch",
    "": "epoch not stated",
}

SOURCES = (
    # the field's common table
    ("RepDistiller", "RepDistiller README"),
    # authors of a strategy, by year
    ("overhaul-distillation", "overhaul-distillation"),
    ("ReviewKD", "ReviewKD "),
    ("mdistiller", "mdistiller README"),
    ("DIST_KD", "DIST_KD README"),
    ("CTKD", "CTKD README"),
    ("logit-standardization-KD", "logit-standardization-KD"),
    # collections of others' work
    ("mmrazor", "mmrazor"),
    ("KD-Zoo", "Knowledge-Distillation-Zoo README"),
    (
        "original via torchdistill",
        'torchdistill docs/benchmarks: column "Original work"',
    ),
    ("torchdistill", "torchdistill"),
    ("KD-via-ND", "Knowledge-Distillation-via-ND README"),
    ("Papers with Code", "paperswithcode"),
    # single users
    ("mdistiller issue", "mdistiller issue"),
)
"""Short name, and how its text begins. Of several sources of one number the first here
is shown, after those that report the last epoch."""

ALONE = "trained alone, in no pair"
PEER = "mutual learning: the teacher's place is a peer's"
NO_MODEL = "a model that no pair of kdbench has"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One published number. `top1` is in percent.

    `strategy` is "" for a method that is none of kdbench's. `epoch` is which epoch the
    source reports, in words; `source` its short name, `told` its whole text.
    """

    dataset: str
    teacher: str
    student: str
    strategy: str
    method: str
    top1: float
    epoch: str
    source: str
    told: str

    @property
    def pair(self) -> str:
        return f"{self.teacher}-{self.student}"

    @property
    def cited(self) -> str:
        """Source and epoch rule."""
        return f"{self.source}, {self.epoch}"


@dataclass(frozen=True)
class Published:
    """All of the file: `entries`, in its order, and each row left out, with why."""

    entries: tuple[Entry, ...]
    outside: tuple[tuple[dict[str, str], str], ...]


@cache
def published() -> Published:
    """Read the packaged file.

    The accuracies that a source gives for the teacher and the student alone are entries
    too, of "teacher" and "scratch", once for each source.
    """
    entries: list[Entry] = []
    outside = []
    path = Path(__file__).with_name("published.csv")
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            reason = why_outside(row)
            if reason:
                outside.append((row, reason))
            else:
                entries += _entries(row)
    return Published(_once(entries), tuple(outside))


def why_outside(row: dict[str, str]) -> str | None:
    """Why a row is no number of a pair of kdbench's, or None."""
    if not row["teacher"]:
        return ALONE
    if row["method"] == "DML":
        return PEER
    known = MODELS[DATASETS[row["dataset"]]]
    if row["teacher"] not in known or row["student"] not in known:
        return NO_MODEL
    return None


def source_of(told: str) -> str:
    """The short name of a source. Raises StopIteration for an unknown one."""
    return next(name for name, start in SOURCES if told.startswith(start))


def _entries(row: dict[str, str]) -> list[Entry]:
    """The row's own number, then its teacher's and its student's alone."""
    dataset = DATASETS[row["dataset"]]
    models = MODELS[dataset]
    # who reports a strategy's best epoch may cite the baselines from elsewhere
    cited = EPOCHS["last" if row["epoch_reported"] == "last" else ""]
    told = row["source"]
    about_all = re.sub(r" (mean±std .*|\(KD T=4\))$", "", told)
    found = [
        (
            STRATEGIES.get(row["method"], ""),
            row["method"],
            row["top1"],
            EPOCHS[row["epoch_reported"]],
            told,
        ),
        ("teacher", "teacher", row["teacher_top1"], cited, about_all),
        ("scratch", "student alone", row["student_top1"], cited, about_all),
    ]
    return [
        Entry(
            dataset=dataset,
            teacher=models[row["teacher"]],
            student=models[row["student"]],
            strategy=strategy,
            method=method,
            top1=float(top1),
            epoch=epoch,
            source=source_of(told),
            told=whole,
        )
        for strategy, method, top1, epoch, whole in found
        if top1
    ]


def _once(entries: list[Entry]) -> tuple[Entry, ...]:
    """Every number of a strategy, and each baseline once for each source."""
    kept: dict[object, Entry] = {}
    for place, entry in enumerate(entries):
        baseline = entry.strategy in ("teacher", "scratch")
        same = (entry.dataset, entry.pair, entry.strategy, entry.source, entry.top1)
        kept.setdefault(same if baseline else place, entry)
    return tuple(kept.values())


def preference(entry: Entry) -> tuple[bool, int]:
    """Sorts the number to show first: a last epoch, then by the order of `SOURCES`."""
    names = [name for name, _ in SOURCES]
    return entry.epoch != EPOCHS["last"], names.index(entry.source)


def cells(dataset: str, pair: str) -> dict[str, tuple[Entry, ...]]:
    """Strategy -> its published numbers, the one to show first.

    Methods that are none of kdbench's are under their own names.
    """
    found: dict[str, list[Entry]] = {}
    for entry in published().entries:
        if (entry.dataset, entry.pair) == (dataset, pair):
            found.setdefault(entry.strategy or entry.method, []).append(entry)
    return {name: tuple(sorted(e, key=preference)) for name, e in found.items()}


def pairs() -> dict[str, tuple[str, ...]]:
    """Dataset -> the pairs that have published numbers."""
    found = {(entry.dataset, entry.pair) for entry in published().entries}
    return {
        dataset: tuple(sorted(pair for d, pair in found if d == dataset))
        for dataset in sorted(DATASETS.values())
    }
