"""What the convolutional image models share: their outer form, taps and first weights.

Taps follow the distillation tables for CIFAR-100 (Tian et al. 2020, arXiv:1910.10699):
`stageK` is what stage K hands on, `preactK` what its last ReLU is given, `maps` what is
averaged to `pooled`. The last batch
norm registered in a stage is the one before that ReLU, unless a file says otherwise.
No ReLU works in place, so that what is tapped stays as it was.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from kdbench.api import Shape


class Staged(nn.Module):
    """(B, C, H, W) -> (B, outputs): stem, stages, head, pooling, classifier.

    `features` is the number of channels that leave the head.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        features: int,
        outputs: int,
        head: nn.Module | None = None,
    ):
        super().__init__()
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.head = head or nn.Identity()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(features, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        maps = self.head(self.stages(self.stem(inputs)))  # (B, features, h, w)
        logits: Tensor = self.classifier(self.pool(maps).flatten(1))
        return logits


def image_channels(kind: str, input_shape: Shape, smallest: int = 1) -> int:
    """Channels of (C, H, W) inputs.

    Raises ValueError where they are no images, or below `smallest` pixels on a side.
    """
    if len(input_shape) != 3:
        raise ValueError(f"{kind} needs images (C, H, W), not inputs of {input_shape}")
    if min(input_shape[1:]) < smallest:
        raise ValueError(
            f"{kind} needs images of {smallest}x{smallest} and up, "
            f"not inputs of {input_shape}"
        )
    return input_shape[0]


def conv_bn(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """A convolution without bias, padded to keep the size at stride 1; batch norm."""
    return [
        nn.Conv2d(
            inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(outputs),
    ]


def he_fan_out(module: nn.Module) -> None:
    """Draw convolutions from N(0, 2 / fan-out) and set their biases to 0.

    He et al. 2015, arXiv:1502.01852, section 2.2. Batch norms start at scale 1 and
    shift 0 by themselves.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def small_classifier(model: Staged) -> None:
    """Draw the classifier's weights from N(0, 0.01 ** 2) and set its bias to 0."""
    nn.init.normal_(model.classifier.weight, std=0.01)
    nn.init.zeros_(model.classifier.bias)


def staged_taps(preacts: Sequence[str]) -> dict[str, str]:
    """The taps of a `Staged` model, given the module path of each stage's `preact`."""
    taps = {"stem": "stem"}
    for k, preact in enumerate(preacts):
        taps[f"preact{k + 1}"] = preact
        taps[f"stage{k + 1}"] = f"stages.{k}"
    return {**taps, "maps": "pool:input", "pooled": "classifier:input"}
