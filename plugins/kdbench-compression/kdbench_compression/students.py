"""The students that this plugin offers, and the pairs that they are in."""

from kdbench import Model, Pair
from kdbench.models import kdbench_models
from kdbench.models.convnet import convnet
from kdbench.models.mlp import mlp
from kdbench_compression.pruning import pruned
from kdbench_compression.quantisation import int8

PRUNED_MLP = "the seed articles' teacher and way; as wide as the student of mnist-mlp"


def models() -> list[Model]:
    """Students made from their teacher, and the same widths from a fresh start."""
    offers = kdbench_models()
    host = {offer.name: offer for offer in offers if isinstance(offer, Model)}
    conv, dense, lenet = host["convnet_32"], host["mlp_bn_256_128"], host["lenet"]
    wide = host["mlp_512_256"]
    narrow = pruned(conv, 0.75)
    return [
        pruned(conv, 0.5),
        narrow,
        pruned(dense, 0.75),
        pruned(lenet, 0.5),
        pruned(wide, 0.5),
        int8(conv, start="teacher"),
        int8(lenet, start="teacher"),
        int8(host["convnet_6"]),
        int8(narrow),
        convnet(16),
        convnet(8),
        mlp(64, 32, batch_norm=True),
    ]


def pairs() -> list[Pair]:
    """One student each; teachers are the host's own models."""
    return [
        _pair("conv-pruned-50", "convnet_32", "convnet_32_pruned_50"),
        _pair("conv-16", "convnet_32", "convnet_16", "as wide, from a fresh start"),
        _pair("conv-pruned-75", "convnet_32", "convnet_32_pruned_75"),
        _pair("conv-8", "convnet_32", "convnet_8", "as wide, from a fresh start"),
        _pair("conv-int8", "convnet_32", "int8_convnet_32_from_teacher"),
        _pair("conv-6-int8", "convnet_32", "int8_convnet_6", "from a fresh start"),
        _pair("conv-pruned-75-int8", "convnet_32", "int8_convnet_32_pruned_75"),
        _pair("mlp-pruned-75", "mlp_bn_256_128", "mlp_bn_256_128_pruned_75"),
        _pair("mlp-64-32", "mlp_bn_256_128", "mlp_bn_64_32", "from a fresh start"),
        _pair("lenet-pruned-50", "lenet", "lenet_pruned_50"),
        _pair(
            "mnist-mlp-pruned-50", "mlp_512_256", "mlp_512_256_pruned_50", PRUNED_MLP
        ),
        _pair("lenet-int8", "lenet", "int8_lenet_from_teacher"),
    ]


def _pair(name: str, teacher: str, student: str, how: str = "") -> Pair:
    summary = f"{teacher} -> {student}" + (f", {how}" if how else "")
    return Pair(name=name, teachers=(teacher,), students=(student,), summary=summary)
