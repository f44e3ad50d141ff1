"""Built-in models and pairs."""

from kdbench.api import Model, Pair, hookimpl
from kdbench.models.convnet import convnet
from kdbench.models.lenet import lenet
from kdbench.models.mlp import mlp


@hookimpl
def kdbench_models() -> list[Model]:
    return [
        mlp(256, 128, batch_norm=True),
        mlp(8, 8, batch_norm=True),
        convnet(32),
        convnet(6),
        mlp(512, 256),
        mlp(256, 128),
        mlp(64),
        mlp(32),
        mlp(5),
        lenet("lenet", 6, 16, 120, 84),
        lenet("lenet_half", 3, 8, 60, 42),
    ]


@hookimpl
def kdbench_pairs() -> list[Pair]:
    return [
        Pair(
            name="digits-mlp",
            teachers=("mlp_bn_256_128",),
            students=("mlp_bn_8_8",),
            summary="dense layers with batch norm, for 8x8 digits",
        ),
        Pair(
            name="digits-conv",
            teachers=("convnet_32",),
            students=("convnet_6",),
            summary="plain convnets, the teacher five times as wide",
        ),
        Pair(
            name="mnist-mlp",
            teachers=("mlp_512_256",),
            students=("mlp_256_128",),
            summary="the seed articles' pair: 784-512-256-10 and 784-256-128-10",
        ),
        Pair(
            name="mnist-lenet",
            teachers=("lenet",),
            students=("lenet_half",),
            summary="LeNet-5 and one of half its width",
        ),
        Pair(
            name="lenet-dense",
            teachers=("lenet",),
            students=("mlp_32",),
            summary="a convnet teaches a dense net of one hidden layer",
        ),
        Pair(
            name="split-mlp",
            teachers=("mlp_64",),
            students=("mlp_32",),
            summary="64 hidden units, and half of them",
        ),
        Pair(
            name="tabular-mlp",
            teachers=("mlp_64",),
            students=("mlp_5",),
            summary="10-64-2 and the seed articles' 10-5-2, for tables of ten columns",
        ),
    ]
