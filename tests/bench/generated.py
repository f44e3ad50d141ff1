"""Records of trainings that never were, as large as real ones: for times at scale."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import numpy as np

from kdbench.records import Recipe, Record, Run, SpeedRecord

SETTINGS = [
    "wrn_40_2-wrn_16_2",
    "wrn_40_2-wrn_40_1",
    "resnet56-resnet20",
    "resnet110-resnet20",
    "resnet110-resnet32",
    "resnet32x4-resnet8x4",
    "vgg13-vgg8",
    "vgg13-mobilenetv2",
    "resnet50-mobilenetv2",
    "resnet50-vgg8",
    "resnet32x4-shufflenetv1",
    "resnet32x4-shufflenetv2",
    "wrn_40_2-shufflenetv1",
]
STRATEGIES = ["scratch", "kd", *(f"strategy_{n:02}" for n in range(2, 55))]
ITEMS, CLASSES, BINS = 10_000, 100, 15
ENVIRONMENT: dict[str, str | int | float | None] = {
    "cpu": "Generated CPU",
    "device": "cpu",
    "gpu": None,
    "threads": 2,
    "python": "3.11.2",
    "torch": "2.13.0",
    "kdbench": "0.1.0",
}
COSTS = [
    "train_s",
    "train_shared_s",
    "own_s",
    "data_s",
    "teacher_s",
    "student_s",
    "loss_s",
    "backward_s",
    "optimiser_s",
    "engine_s",
    "evaluation_s",
    "checkpoint_s",
    "loop_s",
    "company",
    "student_epochs",
    "teacher_forwards",
    "adapter_parameters",
    "peak_memory_bytes",
]


def records(seeds: int = 14, epochs: int = 240) -> Iterator[Record]:
    """A teacher and every strategy with every seed, for each standard pair."""
    for place, pair in enumerate(SETTINGS):
        teacher, student = pair.split("-")
        rng = np.random.default_rng(place)
        recipe = Recipe(epochs=epochs)
        taught = _record("teacher", pair, (), teacher, 0, recipe, 76.0, rng)
        yield taught
        for number, strategy in enumerate(STRATEGIES):
            level = 69 + 4 * (1 - np.exp(-number / 20)) + rng.normal(0, 0.3)
            for seed in range(seeds):
                top1 = level + rng.normal(0, 0.25)
                run = (strategy, pair, (teacher,), student, seed, recipe)
                yield _record(*run, top1, rng, (taught.id,))


def speeds() -> Iterator[SpeedRecord]:
    """One for every model of the pairs."""
    for place, model in enumerate(sorted({m for p in SETTINGS for m in p.split("-")})):
        yield SpeedRecord(
            model=model,
            dataset="cifar100",
            measures={"latency_ms": 1.0 + place, "throughput": 1000.0 / (1 + place)},
            environment=ENVIRONMENT,
            finished_at="2026-01-01T00:00:00+00:00",
        )


def _record(
    strategy: str,
    pair: str,
    teachers: tuple[str, ...],
    student: str,
    seed: int,
    recipe: Recipe,
    top1: float,
    rng: np.random.Generator,
    taught_by: tuple[str, ...] = (),
) -> Record:
    run = Run(
        dataset="cifar100",
        pair=pair if teachers else student,
        teachers=teachers,
        students=(student,),
        strategy=strategy,
        label=strategy,
        params={},
        seed=seed,
        recipe=recipe,
        teacher_runs=taught_by,
        code={"strategy": f"{strategy} 0123456789ab"},
    )
    right = rng.random(ITEMS) < top1 / 100
    exact = 100 * float(right.mean())
    ramp = np.linspace(0.3, 1, recipe.epochs)
    curve = (exact * ramp).tolist()
    loss = rng.random(recipe.epochs).tolist()
    measures = {"top1": exact, "top5": exact + 20, "nll": 1.1, "ece": 5.2}
    measures |= {"agreement": 75.0 + rng.normal(), "teacher_kl": 0.4}
    measures |= {"parameters": 3e5 + len(student), "macs": 4e7}
    measures |= {"size_bytes": 1.2e6}
    return Record(
        id=run.id,
        run=run,
        status="finished",
        family="generated",
        plugin={"distribution": "kdbench", "version": "0.1.0"},
        environment=ENVIRONMENT,
        finished_at="2026-01-01T00:00:00+00:00",
        curves={"top1": curve, "lr": loss, "loss/ce": loss, "loss/kd": loss},
        measures=measures,
        lists={
            "per_class_top1": (100 * rng.random(CLASSES)).tolist(),
            "calibration_count": [float(ITEMS // BINS)] * BINS,
            "calibration_confidence": np.linspace(0.03, 0.97, BINS).tolist(),
            "calibration_accuracy": np.linspace(3, 97, BINS).tolist(),
        },
        cost={name: float(rng.random()) for name in COSTS},
        test_items=ITEMS,
        correct=base64.b64encode(np.packbits(right).tobytes()).decode(),
    )
