"""Any image classifier of torchvision or timm by name, untrained; nothing is fetched.

No ReLU or other layer of theirs works in place here, so that the declared taps stay as
they were. A module path of your own may name a value that the library overwrites by a
function: the last batch norm of a residual block, to which the shortcut is added.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from kdbench.api import Model, Shape, UserError, unknown
from kdbench.models.staged import image_channels
from kdbench.vision import torchvision

STAGE = re.compile(r"(layer|stage|trunk_output\.block|features\.denseblock)\d")
"""Modules of torchvision's residual, shuffle, regular and dense networks."""
POOLS = ("avgpool", "global_pool")
"""Modules that average the last maps of a convnet, by either library's name."""
OUTPUTS = 7
"""Outputs of the model that is built to look at: a number that no inner layer has."""


def torchvision_model(name: str) -> Model:
    """The model "torchvision:<name>", such as resnet34, for images of 3 channels.

    Residual networks have taps `stem`, `stageK` and `preactK`, others `stageK` where
    their stages have names. Building raises ValueError for other inputs. Raises
    UserError for a name that torchvision does not have.
    """
    models = torchvision("models")
    known = models.list_models(module=models)
    if name not in known:
        raise unknown("torchvision model", name, known)
    build = partial(build_torchvision, name=name)
    sketch = _on_meta(build, (3, 224, 224))
    return _model("torchvision", name, build, sketch, _torchvision_stages(sketch))


def timm_model(name: str) -> Model:
    """The model "timm:<name>", such as resnet18, for images of any number of channels.

    What timm lists as features is `stem` down to half the resolution and `stageK` from
    there, where it is (B, C, H, W) or tokens (B, L, D). Raises UserError for a name
    that timm does not have, and where timm is not installed.
    """
    timm = _timm()
    if not timm.is_model(name):
        raise unknown("timm model", name, timm.list_models())
    build = partial(build_timm, name=name)
    shape = tuple(timm.get_pretrained_cfg(name).input_size)
    sketch = _on_meta(build, shape)
    return _model("timm", name, build, sketch, _timm_stages(sketch, shape))


def build_torchvision(input_shape: Shape, outputs: int, name: str) -> nn.Module:
    """A network of torchvision for (3, H, W) inputs, freshly initialised.

    Raises ValueError for inputs that it cannot be built for.
    """
    channels = image_channels(name, input_shape)
    if channels != 3:
        raise ValueError(
            f"torchvision:{name} reads images of 3 channels, not inputs of "
            f"{input_shape}; models of timm (timm:NAME) take any number"
        )
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True}
    if name.startswith("vit_"):
        options = {"image_size": _side(name, input_shape)}
    if name.startswith("maxvit"):
        options = {"input_size": input_shape[1:]}
    make = partial(
        torchvision("models").get_model,
        name,
        weights=None,
        num_classes=outputs,
        **options,
    )
    return _made(f"torchvision:{name}", input_shape, make)


def build_timm(input_shape: Shape, outputs: int, name: str) -> nn.Module:
    """A network of timm for (C, H, W) inputs, freshly initialised.

    Raises ValueError for inputs that it cannot be built for.
    """
    timm = _timm()
    options: dict[str, Any] = {"in_chans": image_channels(name, input_shape)}
    usual = timm.get_pretrained_cfg(name)
    if usual.fixed_input_size and input_shape[1:] != tuple(usual.input_size[1:]):
        options["img_size"] = input_shape[1:]
    make = partial(
        timm.create_model, name, pretrained=False, num_classes=outputs, **options
    )
    return _made(f"timm:{name}", input_shape, make)


def _timm() -> Any:
    # Before timm, which imports it by itself and would fail where it is broken.
    torchvision("models.feature_extraction")
    try:
        return import_module("timm")
    except ImportError as error:
        what = f"timm cannot be imported ({error})"
        raise UserError(f"{what}; pip install 'kdbench[timm]'") from error


def _side(name: str, input_shape: Shape) -> int:
    _, height, width = input_shape
    if height != width:
        raise ValueError(f"{name} reads square images, not inputs of {input_shape}")
    return height


def _made(name: str, input_shape: Shape, make: Callable[[], nn.Module]) -> nn.Module:
    """What `make` builds, with nothing in place; ValueError where it cannot."""
    try:
        model = _even_on_meta(make)
    except Exception as error:
        what = f"{name} cannot be built for inputs of {input_shape}"
        raise ValueError(f"{what}: {error}") from error
    for part in model.modules():
        if getattr(part, "inplace", False) is True:
            part.inplace = False  # type: ignore[assignment]
    return model


def _even_on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    try:
        return make()
    except (NotImplementedError, RuntimeError):
        if torch.get_default_device().type != "meta":
            raise
    # Some work out their widths or rates with tensors, which need data for that.
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        return make().to("meta")


def _on_meta(build: Callable[..., nn.Module], shape: Shape) -> nn.Module:
    """The model without data, to look at."""
    with torch.device("meta"):
        return build(shape, OUTPUTS).eval()


def _model(
    library: str,
    name: str,
    build: Callable[..., nn.Module],
    sketch: nn.Module,
    stages: dict[str, str],
) -> Model:
    version: str = import_module(library).__version__
    dense = [
        path
        for path, part in sketch.named_modules()
        if isinstance(part, nn.Linear) and part.out_features == OUTPUTS
    ]
    # Two of them vote (distilled transformers), none is a convolution (SqueezeNet).
    classifier = dense[0] if len(dense) == 1 else ""
    pooled = {"pooled": f"{classifier}:input"} if classifier else {}
    pools = [path for path, _ in sketch.named_modules() if path in POOLS]
    if pools and classifier:
        pooled = {"maps": f"{pools[0]}:input", **pooled}
    return Model(
        name=f"{library}:{name}",
        summary=f"{name} of {library}, untrained",
        build=build,
        taps={**stages, **pooled},
        classifier=classifier,
        version=version.partition("+")[0],  # whatever CUDA it was compiled for
    )


def _torchvision_stages(sketch: nn.Module) -> dict[str, str]:
    parts = dict(sketch.named_modules())
    stages = [path for path in parts if STAGE.fullmatch(path)]
    residual = isinstance(sketch, torchvision("models").ResNet)
    taps = {"stem": "relu"} if residual else {}
    for k, path in enumerate(stages, start=1):
        if residual:
            # The one ReLU of a block is called several times; the last call counts.
            last = len(list(parts[path].children())) - 1
            taps[f"preact{k}"] = f"{path}.{last}.relu:input"
        taps[f"stage{k}"] = path
    return taps


def _timm_stages(sketch: nn.Module, shape: Shape) -> dict[str, str]:
    features: Any = getattr(sketch, "feature_info", ())
    if not all(isinstance(f, dict) and "module" in f for f in features):
        return {}
    seen = _shapes(sketch, [f["module"] for f in features], shape)
    for feature in features:
        found = seen.get(feature["module"], ())
        axis = {4: 1, 3: 2}.get(len(found))
        if axis is None or found[axis] != feature["num_chs"]:
            return {}  # not a module's output, or channels last (Swin)
    shallow = [f["module"] for f in features if f["reduction"] <= 2]
    deep = [f["module"] for f in features if f["reduction"] > 2]
    taps = {"stem": shallow[-1]} if shallow else {}
    return {**taps, **{f"stage{k}": path for k, path in enumerate(deep, start=1)}}


def _shapes(
    sketch: nn.Module, paths: Iterable[str], shape: Shape
) -> dict[str, tuple[int, ...]]:
    """Shapes (2, ...) of what these modules give, by one pass without data."""
    parts = dict(sketch.named_modules())
    seen: dict[str, tuple[int, ...]] = {}

    def keep(path: str, _part: nn.Module, _args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            seen[path] = tuple(output.shape)

    hooks = [
        parts[path].register_forward_hook(partial(keep, path))
        for path in paths
        if path in parts
    ]
    with torch.no_grad():
        sketch(torch.zeros(2, *shape, device="meta"))
    for hook in hooks:
        hook.remove()
    return seen
