"""`kdbench teacher import`: checkpoints taken in from elsewhere."""

from __future__ import annotations

import argparse
import pickle
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kdbench.engine.feed import Feed
from kdbench.engine.teacher import predict
from kdbench.records import Recipe
from kdbench.store import load
from kdbench.tasks import headline_of
from kdbench.teachers.foreign import KeyMap, renamed
from kdbench.teachers.store import store_folder
from kdbench.weights import read, read_card

QUICK = ["--seeds", "1", "--epochs", "2", "-p", "digits-mlp", "-s", "scratch"]
QUICK += ["--executor", "here"]
FOREIGN = ["--model", "mlp_bn_8_8", "--dataset", "digits", "--name", "mine"]


def elsewhere(module):
    """Its state under another project's names."""
    new = {"layers.": "module.body.", "classifier.": "module.fc."}
    state = {}
    for name, value in module.state_dict().items():
        old, theirs = next(item for item in new.items() if name.startswith(item[0]))
        state[name.replace(old, theirs)] = value.clone()
    return state


MAP = """
[rename]
"module.fc.weight" = "classifier.weight"
"module.fc.bias" = "classifier.bias"

[[replace]]
from = '^module\\.'
to = ""

[[replace]]
from = '^body'
to = "layers"
"""


def test_a_checkpoint_under_other_names_is_mapped_and_measured(
    kdbench, module, host, tmp_path
):
    torch.save({"epoch": 3, "model": elsewhere(module)}, "theirs.pth")
    (tmp_path / "map.toml").write_text(MAP)
    done = kdbench(
        *("teacher", "import", "theirs.pth", *FOREIGN),
        *("--key", "model", "--map", "map.toml", "--device", "cpu"),
    )
    assert done.code == 0, done.err
    dataset = host.dataset("digits")
    feed = Feed(
        dataset.load(None, False), dataset.task, Recipe(), 0, torch.device("cpu")
    )
    value = headline_of(dataset.task, predict(module, feed), feed.test_targets)
    assert f"reaches Top-1 {value:.2f}% on the 450 test items of digits" in done.out
    card, state = read(store_folder() / "imported" / "mine.safetensors")
    assert (card.model, card.dataset, card.file) == (
        "mlp_bn_8_8",
        "digits",
        "theirs.pth",
    )
    assert card.map == MAP
    assert all(torch.equal(state[k], v) for k, v in module.state_dict().items())
    assert "imported:mine" in kdbench("teacher", "list").out


def test_a_safetensors_file_of_right_names_needs_no_map(kdbench, module, tmp_path):
    save_file(module.state_dict(), tmp_path / "theirs.safetensors")
    done = kdbench("teacher", "import", "theirs.safetensors", *FOREIGN)
    assert done.code == 0, done.err


def test_an_imported_checkpoint_teaches_in_a_suite(kdbench, module, tmp_path):
    """Under its name: loaded, measured and not trained."""
    torch.save(module.state_dict(), "theirs.pth")
    assert kdbench("teacher", "import", "theirs.pth", *FOREIGN).code == 0
    (tmp_path / "own.toml").write_text(SUITE)
    done = kdbench("run", "own.toml", "--no-speed", "--no-report", "--executor", "here")
    assert done.code == 0, done.out + done.err
    assert "measures" not in done.err
    records = load([tmp_path / "results" / "own"]).records
    [taught] = [r for r in records if r.run.is_teacher]
    card = read_card(store_folder() / "imported" / "mine.safetensors")
    assert taught.run.students == ("imported:mine",)
    assert taught.weights_sha256 == card.weights_sha256
    assert taught.measures["top1"] == card.value
    assert {r.status for r in records} == {"finished"}


SUITE = """
datasets = ["digits"]
pairs = ["own"]
strategies = ["kd"]
seeds = 1
[recipe]
epochs = 1
[define_pairs.own]
teacher = "imported:mine"
student = "mlp_5"
"""


def test_other_weights_under_one_name_are_another_teacher(
    kdbench, module, host, tmp_path
):
    from kdbench.plugins import code_of
    from kdbench.teachers.imported import imported_model

    torch.save(module.state_dict(), "theirs.pth")
    assert kdbench("teacher", "import", "theirs.pth", *FOREIGN).code == 0
    first = code_of(imported_model("mine", host))
    with torch.no_grad():
        module.classifier.bias += 1
    torch.save(module.state_dict(), "theirs.pth")
    done = kdbench("teacher", "import", "theirs.pth", *FOREIGN)
    assert done.code == 2
    assert "a checkpoint named 'mine' was imported already" in done.err
    assert kdbench("teacher", "import", "theirs.pth", *FOREIGN, "--force").code == 0
    assert code_of(imported_model("mine", host)) != first


def test_an_imported_checkpoint_is_passed_on_too(
    kdbench, module, monkeypatch, tmp_path
):
    torch.save(module.state_dict(), "theirs.pth")
    kdbench("teacher", "import", "theirs.pth", *FOREIGN)
    assert kdbench("teacher", "export", "imported:mine", "it.safetensors").code == 0
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "another_machine"))
    done = kdbench("teacher", "import", "it.safetensors")
    assert "a pair can name it as teacher: imported:mine" in done.out


class Runs:
    """A pickle that would create a file when it is loaded."""

    def __reduce__(self):
        return (open, ("was_run", "w"))


def test_a_file_that_can_run_code_is_refused_and_not_run(kdbench, tmp_path):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Runs()))
    torch.save({"model": {}, "opt": argparse.Namespace(lr=0.1)}, "opt.pth")
    torch.save(torch.nn.Linear(2, 2), "whole.pth")
    for file, names in (
        ("evil.pth", "can run any code"),
        ("opt.pth", "argparse.Namespace"),
        ("whole.pth", "torch.nn.modules.linear.Linear"),
    ):
        done = kdbench("teacher", "import", file, *FOREIGN)
        assert done.code == 2
        assert f"{file} is refused: it holds more than tensors" in done.err
        assert names in done.err
    assert not (tmp_path / "was_run").exists()


# --- mistakes -------------------------------------------------------------------------


def changed(state, how):
    """A state that does not fit, in one way."""
    name = "layers.0.0.weight"
    if how == "renamed":
        state["layers.0.0.weigth"] = state.pop(name)
    elif how == "missing":
        del state[name]
    elif how == "left over":
        state["head2.bias"] = torch.zeros(3)
    elif how == "shape":
        state[name] = state[name].T
    elif how == "classes":
        state["classifier.weight"] = torch.zeros(100, 8)
        state["classifier.bias"] = torch.zeros(100)
    elif how == "type":
        state[name] = state[name].long()
    elif how == "nan":
        state[name] = state[name] * float("nan")
    return state


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("renamed", "missing (1): 'layers.0.0.weight' (near 'layers.0.0.weigth')"),
        ("renamed", "the sizes are equal: say with --map FILE which key is which"),
        ("missing", "missing (1): 'layers.0.0.weight'"),
        ("left over", "unexpected (1): 'head2.bias'"),
        ("shape", "'layers.0.0.weight' is (64, 8), not (8, 64)"),
        ("classes", "has 100 outputs, and digits has 10 classes"),
        ("type", "'layers.0.0.weight' is torch.int64, not torch.float32"),
        ("nan", "'layers.0.0.weight' holds NaN or infinity"),
    ],
)
def test_every_key_must_match(kdbench, module, how, says):
    torch.save(changed(module.state_dict(), how), "theirs.pth")
    done = kdbench("teacher", "import", "theirs.pth", *FOREIGN)
    assert done.code == 2
    assert says in done.err
    assert not store_folder().exists()


def test_a_wrong_model_is_told_by_its_size(kdbench, module):
    torch.save(module.state_dict(), "theirs.pth")
    done = kdbench("teacher", "import", "theirs.pth", *FOREIGN, "--model", "convnet_6")
    assert done.code == 2
    assert "the sizes differ: is it another model?" in done.err


def test_a_prefix_goes_only_by_the_map(kdbench, module):
    torch.save({f"module.{k}": v for k, v in module.state_dict().items()}, "dp.pth")
    done = kdbench("teacher", "import", "dp.pth", *FOREIGN)
    assert done.code == 2
    assert r"a prefix goes by [[replace]] from = '^module\.' to = ''" in done.err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[rename]\n'no.such' = 'a'", "unknown key 'no.such' in map map.toml"),
        ("[rename]\na.b = 'c'", "with quotes"),
        ("[[replace]]\nfrom = '('\nto = ''", "from = '(', to = '': missing )"),
        ("[[replace]]\nfrom = 'zzz'\nto = ''", "'zzz' matches no key"),
        ("[[replace]]\nfrom = '.+'\nto = 'a'", "two keys become 'a'"),
        ("[[replace]]\nfrom = 'a'\nto = '\\2'", "invalid group reference"),
        ("renames = 1", "it holds drop = [...], [rename], and [[replace]]"),
        ("drop = ['no']", "unknown key 'no' in map map.toml"),
        ("[rename", "is not valid TOML"),
    ],
)
def test_a_map_that_cannot_be_meant_is_refused(kdbench, module, tmp_path, text, says):
    torch.save(module.state_dict(), "theirs.pth")
    (tmp_path / "map.toml").write_text(text)
    done = kdbench("teacher", "import", "theirs.pth", *FOREIGN, "--map", "map.toml")
    assert done.code == 2
    assert says in done.err


def test_what_the_map_drops_is_not_there(kdbench, module, tmp_path):
    torch.save(changed(module.state_dict(), "left over"), "theirs.pth")
    (tmp_path / "map.toml").write_text("drop = ['head2.bias']")
    done = kdbench("teacher", "import", "theirs.pth", *FOREIGN, "--map", "map.toml")
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["import", "none.pth", *FOREIGN], "no file none.pth"),
        (["import", "none.safetensors"], "no file none.safetensors"),
        (["import", ".", *FOREIGN], "cannot be read"),
        (["import", "text.pth", *FOREIGN], "neither safetensors nor a checkpoint"),
        (["import", "empty.pth", *FOREIGN], "neither safetensors nor a checkpoint"),
        (["import", "torn.pth", *FOREIGN], "torn.pth cannot be read as a checkpoint"),
        (["import", "torn.safetensors", *FOREIGN], "torn.safetensors is damaged"),
        (["import", "torn.safetensors"], "torn.safetensors is damaged"),
        (["import", "nested.pth", *FOREIGN], "such as --key model"),
        (["import", "nested.pth", *FOREIGN], "'epoch': int"),
        (["import", "nested.pth", *FOREIGN, "--key", "mdel"], "did you mean 'model'"),
        (
            ["import", "nested.pth", *FOREIGN, "--key", "epoch"],
            "holds int, not a state dict",
        ),
        (["import", "plain.safetensors", *FOREIGN, "--key", "model"], "no levels"),
        (["import", "plain.safetensors"], "--model, --dataset and --name"),
        (["import", "nested.pth"], "nested.pth is not a safetensors file"),
        (["import", "nested.pth", *FOREIGN[:-2]], "needs --name, too"),
        (["import", "nested.pth", *FOREIGN, "--name", "../x"], "use letters"),
        (["import", "nested.pth", *FOREIGN, "--model", "mlp_bn"], "mlp_bn_8_8"),
        (["import", "nested.pth", *FOREIGN, "--dataset", "digit"], "'digits'"),
        (["import", "plain.safetensors", *FOREIGN, "--device", "tpu"], "has: cpu"),
        (["import", "plain.safetensors", *FOREIGN, "--map", "no"], "cannot be read"),
        (["export", "resnet", "new.safetensors"], "no teacher 'resnet' in"),
        (["export", "x", "new.safetensors", "--from", "none"], "no results folder"),
        (["list", "--from", "none"], "no results folder"),
    ],
)
def test_a_mistake_is_one_message_and_changes_nothing(
    kdbench, module, tmp_path, arguments, says
):
    save_file(module.state_dict(), tmp_path / "plain.safetensors")
    torch.save({"epoch": 1, "model": module.state_dict()}, "nested.pth")
    (tmp_path / "text.pth").write_text("hello, world")
    (tmp_path / "empty.pth").write_text("")
    for name in ("nested.pth", "plain.safetensors"):
        torn = (tmp_path / name).read_bytes()[:300]
        (tmp_path / f"torn{(tmp_path / name).suffix}").write_bytes(torn)
    before = sorted(tmp_path.rglob("*"))
    done = kdbench("teacher", *arguments)
    assert done.code == 2, done.out
    assert says in done.err
    assert "Traceback" not in done.err
    assert sorted(tmp_path.rglob("*")) == before
    assert not store_folder().exists()


BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def test_the_map_in_the_docs_takes_the_usual_resnets_names(host):
    """Every key of a CIFAR ResNet-20 as most training scripts save it."""
    import re
    import tomllib

    theirs = ["conv1.weight", *(f"bn1.{part}" for part in BATCH_NORM)]
    for layer, block in product((1, 2, 3), (0, 1, 2)):
        place = f"layer{layer}.{block}"
        for k in (1, 2):
            theirs.append(f"{place}.conv{k}.weight")
            theirs += [f"{place}.bn{k}.{part}" for part in BATCH_NORM]
        if block == 0 and layer > 1:
            theirs.append(f"{place}.downsample.0.weight")
            theirs += [f"{place}.downsample.1.{part}" for part in BATCH_NORM]
    theirs += ["fc.weight", "fc.bias"]
    docs = Path(__file__).parents[2] / "docs" / "data.md"
    [text] = re.findall(r"```toml\n(replace.*?)```", docs.read_text(), re.DOTALL)
    key_map = KeyMap.model_validate(tomllib.loads(text))
    ours = renamed(dict.fromkeys(theirs, torch.zeros(())), key_map, "the docs' map")
    spec = host.model("resnet20")
    assert set(ours) == set(spec.build((3, 32, 32), 100).state_dict())


def test_what_was_imported_is_no_architecture(kdbench, module):
    torch.save(module.state_dict(), "theirs.pth")
    assert kdbench("teacher", "import", "theirs.pth", *FOREIGN).code == 0
    again = ["--model", "imported:mine", *FOREIGN[2:], "--force"]
    done = kdbench("teacher", "import", "theirs.pth", *again)
    assert done.code == 2
    assert "name its architecture" in done.err
    assert kdbench("teacher", "list").code == 0


def test_a_checkpoint_without_any_weights_is_told(kdbench):
    torch.save({"model": None}, "none.pth")
    done = kdbench("teacher", "import", "none.pth", *FOREIGN)
    assert done.code == 2
    assert "save the model's state_dict() alone" in done.err


def test_a_checkpoint_alone_says_what_is_missing(kdbench, module):
    torch.save(module.state_dict(), "theirs.pth")
    done = kdbench("teacher", "import", "theirs.pth")
    assert done.code == 2
    assert "--model, --dataset and --name" in done.err


def test_an_unwritable_cache_is_told(kdbench, module, tmp_path, monkeypatch):
    torch.save(module.state_dict(), "theirs.pth")
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("KDBENCH_CACHE", str(tmp_path / "taken"))
    done = kdbench("teacher", "import", "theirs.pth", *FOREIGN)
    assert done.code == 2
    assert "KDBENCH_CACHE" in done.err


def test_imported_for_other_data_is_refused_before_training(kdbench, module, tmp_path):
    torch.save(module.state_dict(), "theirs.pth")
    assert kdbench("teacher", "import", "theirs.pth", *FOREIGN).code == 0
    text = SUITE.replace('"digits"', '"breast_cancer_10"')
    (tmp_path / "own.toml").write_text(text)
    done = kdbench("run", "own.toml", "--no-speed", "--no-report", "--executor", "here")
    assert done.code == 2
    assert "was imported for digits" in done.err


def test_an_imported_student_starts_anew_and_that_is_said(kdbench, module, tmp_path):
    torch.save(module.state_dict(), "theirs.pth")
    assert kdbench("teacher", "import", "theirs.pth", *FOREIGN).code == 0
    text = SUITE.replace('"imported:mine"', '"mlp_5"', 1)
    text = text.replace('student = "mlp_5"', 'student = "imported:mine"')
    (tmp_path / "own.toml").write_text(text)
    done = kdbench("run", "own.toml", "--no-speed", "--no-report", "--executor", "here")
    assert done.code == 0, done.out + done.err
    assert "starts anew as a student" in done.out
