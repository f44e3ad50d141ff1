"""Built-in models and pairs."""

from kdbench.api import Model, Pair, Source, hookimpl
from kdbench.models.convnet import convnet
from kdbench.models.external import timm_model, torchvision_model
from kdbench.models.lenet import lenet
from kdbench.models.mlp import mlp
from kdbench.models.mobilenet import MOBILENETS
from kdbench.models.pairs import PAIRS
from kdbench.models.resnet import RESNETS
from kdbench.models.shufflenet import SHUFFLENETS
from kdbench.models.vgg import VGG7_NARROW, VGGS
from kdbench.models.wide_resnet import WIDE_RESNETS


@hookimpl
def kdbench_models() -> list[Model | Source]:
    return [
        mlp(256, 128, batch_norm=True),
        mlp(8, 8, batch_norm=True),
        convnet(32),
        mlp(32, 32, batch_norm=True),
        convnet(14),
        convnet(6),
        mlp(512, 256),
        mlp(384, 192),
        mlp(256, 128),
        mlp(64),
        mlp(32),
        mlp(5),
        lenet("lenet", 6, 16, 120, 84),
        lenet("lenet_three_quarters", 4, 12, 90, 63),
        lenet("lenet_half", 3, 8, 60, 42),
        *RESNETS,
        *WIDE_RESNETS,
        *VGGS,
        VGG7_NARROW,
        *MOBILENETS,
        *SHUFFLENETS,
        Source(
            name="torchvision",
            summary="a classification model of torchvision, such as "
            "torchvision:resnet34",
            find=lambda name, _: torchvision_model(name),
        ),
        Source(
            name="timm",
            summary="a model of timm (pip install timm), such as timm:resnet18",
            find=lambda name, _: timm_model(name),
        ),
    ]


@hookimpl
def kdbench_pairs() -> list[Pair]:
    return PAIRS
