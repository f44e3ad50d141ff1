"""Whether a published number was got by our recipe, and by our setting of a strategy.

CIFAR-100: the recipe of RepDistiller (Tian et al. 2020, arXiv:1910.10699), which those
who came after took over. ImageNet: 100 epochs at learning rate 0.1 per 256 items, x0.1
after epochs 30, 60 and 90. What is known to be trained otherwise is so in `OTHERWISE`.
"""

from __future__ import annotations

import math

from kdbench.records import Recipe
from kdbench.report.published import Entry

SLOW_MODELS = {"mobilenetv2", "shufflenetv1", "shufflenetv2"}
"""Trained at learning rate 0.01, not 0.05."""

OTHERWISE = {
    ("KD-Zoo", ""): "200 epochs, batch 128, lr 0.1, Nesterov, reflected padding",
    ("logit-standardization-KD", "mlkd"): "480 epochs at lr 0.025",
}
"""(source, strategy or "" for all) -> a recipe that is like no one else's, from the
source's own scripts and configuration files."""


IMAGENET_SETTINGS = {
    "kd": {"temperature=1", "ce_weight=0.5", "kd_weight=0.5"},
    "dkd": {"temperature=1", "non_target_weight=0.5", "warmup_epochs=1"},
    "dist": {"temperature=1"},
}
"""Where the field's setting for ImageNet is not that for CIFAR, which our defaults are
(Zhao et al. 2022, arXiv:2203.08679; Huang et al. 2022, arXiv:2205.10536)."""


def is_published_setting(dataset: str, strategy: str, label: str) -> bool:
    """Whether published numbers are of the setting that a label stands for.

    `kd` is with the defaults, `kd[temperature=2]` is not.
    """
    given = set(label.removeprefix(strategy).strip("[]").split(",")) - {""}
    wanted = IMAGENET_SETTINGS.get(strategy) if dataset == "imagenet" else None
    return given == (wanted or set())


def unlike(entry: Entry, ours: Recipe) -> str:
    """How our recipe differs from the one the number was got by, in words, or ""."""
    for strategy in ("", entry.strategy):
        if (entry.source, strategy) in OTHERWISE:
            what = f" for {strategy}" if strategy else ""
            return f"theirs is {OTHERWISE[entry.source, strategy]}{what}"
    model = entry.teacher if entry.strategy == "teacher" else entry.student
    theirs = _imagenet(ours) if entry.dataset == "imagenet" else _cifar(model)
    return ", ".join(_departures(ours, theirs))


def _cifar(model: str) -> Recipe:
    lr = 0.01 if model in SLOW_MODELS else 0.05
    return Recipe(lr=lr, crop_padding=4, flip=True)


def _imagenet(ours: Recipe) -> Recipe:
    """At our batch size: authors use 256 and 512, and the learning rate follows it."""
    return Recipe(
        epochs=100,
        batch_size=ours.batch_size,
        lr=0.1 * ours.batch_size / 256,
        weight_decay=1e-4,
        milestones=(30, 60, 90),
        flip=True,
        resized_crop=True,
        image_size=ours.image_size if ours.image_size in (0, 224) else 224,
        drop_last=ours.drop_last,
    )


def _departures(ours: Recipe, theirs: Recipe) -> list[str]:
    """Each field that differs, such as "epochs 30 (theirs 240)"."""
    a, b = ours.model_dump(), theirs.model_dump()
    if ours.teacher_epochs:
        b["teacher_epochs"] = theirs.epochs
    skipped = {"lr_by_model", "rise"}
    if ours.schedule != theirs.schedule:
        skipped |= {"milestones", "gamma"}
    return [
        f"{name.replace('_', ' ')} {_text(a[name])} (theirs {_text(b[name])})"
        for name in a
        if name not in skipped and not _same(a[name], b[name])
    ]


def _same(a: object, b: object) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b)
    return a == b


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return "/".join(str(v) for v in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
