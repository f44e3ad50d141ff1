"""The compressions: what each makes of a finished student, and real runs of them."""

import copy

import pytest
import torch
from kdbench_compression import compressions, int8, pruned
from safetensors.torch import load_file
from torch import nn

from kdbench import Model, UserError
from kdbench.config import changed, read_suite
from kdbench.data.digits import DIGITS
from kdbench.models import kdbench_models
from kdbench.models.taps import probe
from kdbench.plugins import Host
from kdbench.recording import weights_path
from kdbench.session import Options, Session
from kdbench.store import load

HOST = {m.name: m for m in kdbench_models() if isinstance(m, Model)}
OFFERS = {offer.name: offer for offer in compressions.compressions()}
SIZE = ((1, 8, 8), 10)
MODELS = ["convnet_6", "convnet_32", "mlp_bn_8_8", "mlp_bn_256_128"]


def chained(base, *names):
    for name in names:
        base = OFFERS[name].model(base)
    return base


def test_names():
    assert list(OFFERS) == [
        *("structured_25", "structured_50", "structured_75"),
        *("magnitude_50", "magnitude_80", "magnitude_90"),
        "int8_aware",
    ]
    assert all(offer.tunes and offer.missing is None for offer in OFFERS.values())
    for name in OFFERS:
        assert chained(HOST["convnet_6"], name).name == f"convnet_6/{name}"


@pytest.mark.parametrize("name", OFFERS)
@pytest.mark.parametrize("base", MODELS)
def test_it_is_made_of_the_student_in_the_architecture_of_build(lived_in, base, name):
    student = lived_in(HOST[base], (1, 8, 8))
    before = copy.deepcopy(student.state_dict())
    model = chained(HOST[base], name)
    network = model.from_teacher(student, *SIZE)
    shapes = probe(model, tuple(model.taps), DIGITS).shapes
    caught = {}
    for tap, path in model.taps.items():
        place = network.get_submodule(path.removesuffix(":input"))
        if path.endswith(":input"):
            place.register_forward_pre_hook(
                lambda _module, args, tap=tap: caught.update({tap: args[0]})
            )
        else:
            place.register_forward_hook(
                lambda _module, _args, output, tap=tap: caught.update({tap: output})
            )
    network.eval()(torch.randn(2, 1, 8, 8))
    assert {tap: tuple(x.shape[1:]) for tap, x in caught.items()} == {
        tap: shape for tap, shape in shapes.items() if tap != "logits"
    }
    for key, value in student.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("percent", [25, 50, 75])
def test_structured_leaves_the_wanted_share_of_every_layer(lived_in, percent):
    model = chained(HOST["convnet_32"], f"structured_{percent}")
    network = model.from_teacher(lived_in(HOST["convnet_32"], (1, 8, 8)), *SIZE)
    a, b = 32 * (100 - percent) // 100, 64 * (100 - percent) // 100
    weights = [9 * a, 9 * a * a, 9 * a * b, 10 * b]
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert [layer.weight.numel() for layer in layers] == weights
    total = sum(p.numel() for p in network.parameters())
    assert total == sum(weights) + 2 * (a + a + b) + 10


def test_structured_takes_the_student_and_not_what_it_was_made_of(lived_in):
    """A student that was itself pruned from its teacher is pruned once more."""
    base = pruned(HOST["convnet_32"], 0.5)
    student = base.from_teacher(lived_in(HOST["convnet_32"], (1, 8, 8)), *SIZE)
    model = chained(base, "structured_50")
    network = model.from_teacher(student, *SIZE)
    assert len(network.stem[0].weight) == 8
    kept = {tuple(x.flatten().tolist()) for x in network.stem[0].weight}
    assert kept < {tuple(x.flatten().tolist()) for x in student.stem[0].weight}


def test_int8_aware_takes_the_student_and_not_what_it_was_made_of(lived_in):
    base = pruned(HOST["convnet_32"], 0.5)
    student = base.from_teacher(lived_in(HOST["convnet_32"], (1, 8, 8)), *SIZE)
    model = chained(base, "int8_aware")
    network = model.from_teacher(student, *SIZE)
    for key, value in student.state_dict().items():
        assert torch.equal(network.state_dict()[key], value), key
    network.train()(torch.randn(64, 1, 8, 8))  # ranges
    inputs = torch.randn(8, 1, 8, 8)
    exact, given = student.eval()(inputs), model.deploy(network.eval())(inputs)
    assert given.shape == (8, 10)
    assert (given - exact).abs().mean() < 0.2 * exact.abs().mean()


@pytest.mark.parametrize(
    "names",
    [
        ("structured_50", "magnitude_50"),
        ("structured_50", "int8_aware"),
        ("structured_50", "structured_50"),
        ("magnitude_50", "magnitude_90"),
    ],
)
def test_one_after_the_other(lived_in, names):
    base, network = HOST["convnet_32"], lived_in(HOST["convnet_32"], (1, 8, 8))
    for name in names:
        base = chained(base, name)
        network = base.from_teacher(network, *SIZE).eval()
        network = base.deploy(network) if base.deploy else network
    built = base.build(*SIZE).eval()
    built = base.deploy(built) if base.deploy else built
    built.load_state_dict(network.state_dict())
    inputs = torch.randn(3, 1, 8, 8)
    assert torch.equal(built(inputs), network(inputs))


def test_what_is_deployed_as_another_network_is_refused():
    for name in OFFERS:
        with pytest.raises(UserError, match="deployed as another network"):
            chained(int8(HOST["convnet_6"]), name)


def test_a_student_too_narrow_to_halve_is_refused_when_it_is_built():
    with pytest.raises(UserError, match="leaves none"):
        chained(HOST["convnet_6"], "structured_75", "structured_75").build(*SIZE)


ASKED = [
    "kd",
    "fitnet",
    "kd/structured_50",
    "fitnet/structured_50",
    "kd/magnitude_80",
    "fitnet/magnitude_80",
    "kd/int8_aware",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folder and records by label: two epochs of convnet_32 -> convnet_6."""
    out, host = tmp_path_factory.mktemp("compressed"), Host()
    suite = changed(
        read_suite(host.get("suites", "compress").thing.path),
        {"epochs": 2, "seeds": 1, "pairs": ["digits-conv"], "strategies": ASKED},
    )
    options = Options(
        out=out,
        device="cpu",
        data_dir=None,
        download=False,
        workers=1,
        executor="here",
        checkpoint_every_s=60.0,
    )
    session = Session(host, suite, options)
    session.train()
    assert not session.failed
    folder = out / "compress"
    return folder, {r.run.label: r for r in load([folder]).records}


def test_every_row_is_there_and_counts_what_is_left(runs):
    _, records = runs
    measures = {label: records[label].measures for label in ASKED}
    assert measures["kd"]["parameters"] == 1204
    half = 9 * (3 + 9 + 18) + 60 + 2 * (3 + 3 + 6) + 10
    for strategy in ("kd", "fitnet"):
        assert measures[f"{strategy}/structured_50"]["parameters"] == half
        sparse = measures[f"{strategy}/magnitude_80"]
        assert sparse["parameters"] == 1204
        assert sparse["macs"] == measures["kd"]["macs"]
        assert sparse["size_bytes"] == measures["kd"]["size_bytes"]
        weights = 9 * (6 + 36 + 72) + 120
        zeros = round(0.8 * weights)
        assert sparse["sparsity"] == pytest.approx(100 * zeros / weights)
        assert sparse["nonzero_parameters"] == 1204 - zeros
    assert measures["kd"]["sparsity"] == 0
    small = measures["kd/int8_aware"]
    assert small["size_bytes"] < 0.5 * measures["kd"]["size_bytes"]
    assert small["macs"] == measures["kd"]["macs"]


def test_zeros_stayed_through_the_fine_tuning_and_the_rest_learned(runs):
    folder, records = runs
    before, after = (
        load_file(weights_path(folder, records[label].id))
        for label in ("kd", "kd/magnitude_80")
    )
    assert before.keys() == after.keys()
    names = [name for name, value in before.items() if value.ndim > 1]
    old, new = (torch.cat([x[n].flatten() for n in names]) for x in (before, after))
    kept = new != 0
    assert old[~kept].abs().max() <= old[kept].abs().min()
    assert (old[kept] != new[kept]).double().mean() > 0.9


def test_adapters_are_those_of_the_pruned_student():
    """FitNets' regressor goes from the student's channels to the teacher's."""
    strategy, teacher = Host().strategy("fitnet")(), HOST["convnet_32"]
    base = HOST["convnet_6"]
    sizes = {}
    for model in (base, *(chained(base, name) for name in OFFERS)):
        sides = [probe(m, strategy.taps, DIGITS) for m in (model, teacher)]
        adapters = strategy.adapters(*sides)
        sizes[model.name] = next(p for p in adapters.parameters() if p.ndim > 1).shape
    narrow = {25: 9, 50: 6, 75: 3}
    for percent, channels in narrow.items():
        assert sizes[f"convnet_6/structured_{percent}"][:2] == (64, channels)
    for name in OFFERS:
        if "structured" not in name:
            assert sizes[f"convnet_6/{name}"] == sizes["convnet_6"]
