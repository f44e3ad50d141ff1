"""Pairs of networks and classical estimators, in both directions."""

from __future__ import annotations

from kdbench import Pair


def pairs() -> list[Pair]:
    """For the embedded digits; those of `lenet` are for MNIST's 28x28 pixels."""
    return [
        _pair("conv-linear-svm", "convnet_32", "linear_svm"),
        _pair("conv-kernel-svm", "convnet_32", "kernel_svm"),
        _pair("conv-tree", "convnet_32", "decision_tree"),
        _pair("conv-logistic", "convnet_32", "logistic_regression"),
        _pair("conv-boosting", "convnet_32", "gradient_boosting"),
        _pair("conv-knn", "convnet_32", "knn"),
        _pair("forest-tree", "random_forest", "decision_tree"),
        _pair("forest-mlp", "random_forest", "mlp_bn_8_8"),
        _pair("lenet-linear-svm", "lenet", "linear_svm"),
        _pair("lenet-tree", "lenet", "decision_tree"),
    ]


def _pair(name: str, teacher: str, student: str) -> Pair:
    return Pair(
        name=name,
        teachers=(teacher,),
        students=(student,),
        summary=f"{teacher} teaches {student}",
    )
