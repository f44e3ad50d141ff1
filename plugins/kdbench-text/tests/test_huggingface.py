"""A Hugging Face folder as a teacher: its own ids, its own logits, never trained."""

import json
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from kdbench_text.huggingface import huggingface, swapped
from kdbench_text.zoo import MODELS
from safetensors.torch import load_file, save_file

from kdbench import Recipe, UserError
from kdbench.config import Suite
from kdbench.plugins import Host, code_of
from kdbench.session import Options, Session
from kdbench.store import load

WORDS = ["a", "film", "fine", "dull", "warm", "and", "funny", "cold", "slow", "joy"]
WORDS += [",", "word"]
LENGTH = 12
TEXTS = ["a warm joy", "cold", "a dull film , cold and slow"]
KINDS = ("bert", "roberta")


def save_tokenizer(hf, path, kind):
    """Words as they are; padding is 0 for bert and 1, as RoBERTa's, for roberta."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing

    special = {
        "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]"],
        "roberta": ["<s>", "<pad>", "</s>", "<unk>"],
    }[kind]
    ids = {word: k for k, word in enumerate([*special, *WORDS])}
    pad, unknown, first, last = {
        "bert": special,
        "roberta": ["<pad>", "<unk>", "<s>", "</s>"],
    }[kind]
    tokenizer = Tokenizer(WordLevel(ids, unk_token=unknown))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(
        single=f"{first} $A {last}",
        special_tokens=[(first, ids[first]), (last, ids[last])],
    )
    hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        unk_token=unknown,
        cls_token=first,
        sep_token=last,
    ).save_pretrained(path)


@pytest.fixture(scope="session")
def hf():
    """transformers, loaded as the plugin loads it; or a skip."""
    pytest.importorskip("transformers", reason="needs transformers", exc_type=Exception)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        from kdbench.vision import torchvision

        torchvision("transforms")
        import transformers

        yield transformers


@pytest.fixture(scope="session")
def saved(hf, tmp_path_factory):
    """Folders of tiny random classifiers by kind."""
    folders = {}
    for kind in KINDS:
        torch.manual_seed(0)
        path = tmp_path_factory.mktemp("models") / kind
        save_tokenizer(hf, path, kind)
        config = {"bert": hf.BertConfig, "roberta": hf.RobertaConfig}[kind](
            vocab_size=20,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=24,
            num_labels=2,
            pad_token_id=KINDS.index(kind),
            initializer_range=0.5,
        )
        network = hf.AutoModelForSequenceClassification.from_config(config)
        network.save_pretrained(path)
        folders[kind] = path
    return folders


@pytest.fixture
def bert(saved, tmp_path):
    """A copy of the BERT to spoil."""
    return Path(shutil.copytree(saved["bert"], tmp_path / "bert"))


def change(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def trained(offer):
    model = offer.dataset.build(offer.model)
    model.load_state_dict(offer.model.weights())
    return model.eval()


def refused(folder, *words, **options):
    with pytest.raises(UserError) as error:
        huggingface("mine", folder, **options)
    for word in words:
        assert word in str(error.value)


each_kind = pytest.mark.parametrize("kind", KINDS)


def test_swapping_twice_changes_nothing():
    ids = torch.tensor([[0, 1, 2, 3, 0]])
    assert swapped(ids, 1).tolist() == [[1, 0, 2, 3, 1]]
    assert torch.equal(swapped(swapped(ids, 1), 1), ids)
    assert torch.equal(swapped(ids, 0), ids)


@each_kind
def test_ids_are_the_folders_own_with_zero_as_padding(hf, saved, small, kind):
    offer = huggingface("mine", saved[kind], length=LENGTH)
    data = offer.dataset.load(small, False)
    tokenizer = hf.AutoTokenizer.from_pretrained(saved[kind])
    [own] = tokenizer(["a warm joy"])["input_ids"]
    padding = tokenizer.pad_token_id
    assert padding == KINDS.index(kind)
    other = {0: padding, padding: 0}
    wanted = [other.get(token, token) for token in own]
    assert data.test.inputs[0].tolist() == wanted + [0] * (LENGTH - len(own))
    assert 0 not in wanted
    assert data.train.inputs.shape == (4, LENGTH)
    assert data.train.inputs.dtype == data.train.targets.dtype == torch.int64
    assert data.train.targets.tolist() == [1, 0, 1, 0]
    assert data.notes == ()
    assert offer.dataset.name == "sst2-mine"
    assert offer.dataset.input_shape == (LENGTH,)
    assert offer.dataset.vocabulary == len(tokenizer) == 4 + len(WORDS)


def test_padding_said_in_a_text_is_no_padding(saved, small, write):
    write("test", [("a [PAD] film", 1), ("", 0)])
    offer = huggingface("mine", saved["bert"], length=LENGTH)
    ids = offer.dataset.load(small, False).test.inputs
    assert ids[0, :5].tolist() == [2, 4, 5, 3, 0]
    assert ids[1, :3].tolist() == [2, 3, 0]


def test_long_texts_are_cut_keep_their_end_mark_and_are_told(saved, small, write):
    write("test", [("word " * 30, 1), ("word", 0)])
    data = huggingface("mine", saved["bert"], length=8).dataset.load(small, False)
    last = 3  # [SEP]
    assert data.test.inputs[0].tolist() == [2, *[15] * 6, last]
    assert data.notes[-1] == (
        "1 of 2 test texts were longer than 8 tokens of mine and were cut"
    )


@each_kind
def test_logits_are_those_of_the_network_itself(hf, saved, small, write, kind):
    write("test", [(text, 1) for text in TEXTS])
    offer = huggingface("mine", saved[kind], length=LENGTH)
    network = hf.AutoModelForSequenceClassification.from_pretrained(saved[kind])
    tokens = hf.AutoTokenizer.from_pretrained(saved[kind])
    with torch.no_grad():
        own = network.eval()(**tokens(TEXTS, padding=True, return_tensors="pt")).logits
        got = trained(offer)(offer.dataset.load(small, False).test.inputs)
    assert own.std() > 0.01
    torch.testing.assert_close(got, own, rtol=1e-5, atol=1e-5)


@each_kind
def test_padding_changes_no_logit(saved, kind):
    model = trained(huggingface("mine", saved[kind], length=LENGTH))
    ids = torch.zeros(2, LENGTH, dtype=torch.int64)
    ids[0, :4] = torch.tensor([5, 9, 7, 8])
    ids[1, :10] = torch.arange(5, 15)
    with torch.no_grad():
        alone, padded, beside = model(ids[:1, :4]), model(ids[:1]), model(ids)[:1]
        nothing = model(torch.zeros(1, LENGTH, dtype=torch.int64))
    torch.testing.assert_close(padded, alone, rtol=0, atol=0)
    torch.testing.assert_close(beside, alone, rtol=1e-5, atol=1e-5)
    assert torch.isfinite(nothing).all()


@each_kind
def test_taps_and_shapes_need_no_data(saved, kind):
    offer = huggingface("mine", saved[kind], length=LENGTH)
    spec = offer.model
    assert list(spec.taps) == ["embeddings", "stage1", "stage2", "pooled"]

    def features(inputs):
        model, seen = offer.dataset.build(spec).eval(), {}
        for name, path in spec.taps.items():
            place = model.get_submodule(path.removesuffix(":input"))
            if path.endswith(":input"):
                place.register_forward_pre_hook(
                    lambda _m, args, name=name: seen.update({name: args[0]})
                )
            else:
                place.register_forward_hook(
                    lambda _m, _a, out, name=name: seen.update({name: out})
                )
        seen["logits"] = deepcopy(model)(inputs) if inputs.is_meta else model(inputs)
        model(inputs)
        return seen

    with torch.device("meta"):
        empty = features(torch.ones(2, LENGTH, dtype=torch.int64))
    ids = torch.full((2, LENGTH), 5)
    full = features(ids)
    shapes = {name: tuple(x.shape) for name, x in full.items()}
    assert shapes == {name: tuple(x.shape) for name, x in empty.items()}
    assert shapes["stage2"] == (2, LENGTH, 32)
    assert shapes["pooled"] == (2, 32)
    ids[0, 3:] = 0
    short = features(ids[:, :9])
    for name in ("embeddings", "stage1", "stage2"):
        assert short[name].shape == (2, 9, 32)
        assert short[name][0, 3:].count_nonzero() == 0
        assert short[name][0, :3].count_nonzero() > 0


@each_kind
def test_a_copy_gives_the_same_logits(saved, kind):
    model = trained(huggingface("mine", saved[kind], length=LENGTH))
    ids = torch.full((2, 5), 6)
    before = model(ids)
    assert torch.equal(deepcopy(model)(ids), before)


def test_the_version_names_weights_tokenizer_and_length(bert):
    def version(**options):
        offer = huggingface("mine", bert, **{"length": LENGTH, **options})
        return offer.model.version, code_of(offer.model), code_of(offer.dataset)

    first = version()
    assert version() == first
    found = [first, version(length=LENGTH - 1)]
    state = load_file(bert / "model.safetensors")
    state["classifier.bias"] += 1
    save_file(state, bert / "model.safetensors", metadata={"format": "pt"})
    found.append(version())
    change(bert, hidden_act="relu")
    found.append(version())
    path = bert / "tokenizer.json"
    path.write_text(path.read_text().replace('"Whitespace', '"  Whitespace').strip())
    path.write_text(path.read_text().replace('"  Whitespace', '"Whitespace') + " ")
    found.append(version())
    (bert / "README.md").write_text("no matter")
    assert version() == found[-1]
    for part in zip(*found, strict=True):
        assert len({*part}) == len(found)


def test_weights_of_torch_are_read_too_and_nothing_else_is_unpickled(bert, tmp_path):
    wanted = huggingface("mine", bert, length=LENGTH).model.weights()
    state = load_file(bert / "model.safetensors")
    (bert / "model.safetensors").unlink()
    torch.save(state, bert / "pytorch_model.bin")
    got = huggingface("mine", bert, length=LENGTH).model.weights()
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    torch.save({**state, "odd": Path()}, bert / "pytorch_model.bin")
    with pytest.raises(UserError, match="weights cannot be loaded"):
        huggingface("mine", bert, length=LENGTH).model.weights()


def test_half_precision_weights_become_float32(hf, bert):
    network = hf.AutoModelForSequenceClassification.from_pretrained(bert)
    network.bfloat16().save_pretrained(bert)
    offer = huggingface("mine", bert, length=LENGTH)
    assert {x.dtype for x in offer.model.weights().values()} == {torch.float32}
    assert {x.dtype for x in trained(offer).state_dict().values()} == {torch.float32}


def test_refusals(bert, tmp_path):
    refused(tmp_path / "none", "mine: no folder", "config.json")
    refused(tmp_path, "config.json cannot be used")
    refused(bert, "reads at most 24 tokens", "length=24", length=25)
    refused(bert, "length must be at least 1", length=0)
    change(bert, id2label={"0": "A", "1": "B", "2": "C"})
    refused(bert, "tells 3 labels apart", "SST-2 has 2", length=LENGTH)
    change(bert, id2label={"0": "POSITIVE", "1": "NEGATIVE"})
    refused(bert, "label 0 is POSITIVE", length=LENGTH)
    change(bert, id2label={"0": "no", "1": "yes"}, architectures=["BertForMaskedLM"])
    refused(bert, "no sequence classifier", "(architecture BertForMaskedLM)")
    change(bert, architectures=["BertForSequenceClassification"], vocab_size=10)
    refused(bert, "tokenizer has 16 ids and the network 10", length=LENGTH)


def test_positions_of_roberta_start_behind_paddings(saved):
    refused(saved["roberta"], "reads at most 22 tokens", length=23)
    offer = huggingface("mine", saved["roberta"], length=22)
    assert trained(offer)(torch.full((1, 22), 5)).shape == (1, 2)


def test_missing_files_are_refused(bert):
    state = load_file(bert / "model.safetensors")
    del state["classifier.weight"]
    save_file(state, bert / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"classifier.weight are missing \(1 in all"):
        huggingface("mine", bert, length=LENGTH).model.weights()
    (bert / "model.safetensors").unlink()
    refused(bert, "has no weights", length=LENGTH)
    (bert / "tokenizer.json").unlink()
    refused(bert, "has no tokenizer", "save_pretrained", length=LENGTH)


def test_a_tokenizer_without_padding_is_refused(bert):
    path = bert / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["pad_token"]
    path.write_text(json.dumps(settings))
    (bert / "special_tokens_map.json").unlink(missing_ok=True)
    refused(bert, "its tokenizer has no pad_token", length=LENGTH)


def test_other_data_are_refused(saved, small):
    offer = huggingface("mine", saved["bert"], length=LENGTH)
    for wrong in (((LENGTH,), 2, 4096), ((LENGTH,), 3, 16), ((9,), 2, 16)):
        with pytest.raises(UserError, match=r"use huggingface\(\)'s dataset"):
            offer.model.build(*wrong)
    with pytest.raises(UserError, match="'sst2' needs files"):
        offer.dataset.load(None, False)


def test_without_transformers_it_says_what_to_install(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    refused(saved["bert"], "pip install 'kdbench-text[hf]'")


def test_importing_the_plugin_imports_no_transformers():
    code = "import sys, kdbench_text; print('transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_models_from_scratch_read_the_same_ids(saved, small):
    offer = huggingface("mine", saved["roberta"], length=LENGTH)
    ids = offer.dataset.load(small, False).test.inputs
    for spec in MODELS:
        assert offer.dataset.build(spec)(ids).shape == (3, 2)


PLUGIN = """
from kdbench import Pair, hookimpl
from kdbench_text import huggingface

MINE = huggingface("mine", {path!r}, length=12)

@hookimpl
def kdbench_datasets():
    return [MINE.dataset]

@hookimpl
def kdbench_models():
    return [MINE.model]

@hookimpl
def kdbench_pairs():
    return [Pair(name="mine-small", teachers=("mine",), students=("transformer_1x8",))]
"""


def test_a_run_measures_the_teacher_and_trains_the_student(saved, small, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN.format(path=str(saved["roberta"])))
    host = Host(files=[file])
    suite = Suite(
        name="mine",
        datasets=("sst2-mine",),
        pairs=("mine-small",),
        strategies=("scratch", "kd", "patient_kd"),
        seeds=1,
        recipe=Recipe(epochs=1, lr=0.01, batch_size=2, schedule="cosine"),
    )
    options = Options(
        out=tmp_path / "out",
        device="cpu",
        data_dir=small,
        download=False,
        workers=1,
        executor="here",
        checkpoint_every_s=60.0,
    )
    session = Session(host, suite, options)
    session.train()
    assert [record.reason for record in session.failed] == []
    records = {r.run.label: r for r in load([tmp_path / "out" / "mine"]).records}
    assert {r.status for r in records.values()} == {"finished"}
    assert {*records} == {"teacher", "scratch", "kd", "patient_kd"}
    teacher = records["teacher"]
    assert teacher.curves == {}
    assert teacher.cost["student_epochs"] == 0
    [path] = (tmp_path / "out" / "mine" / "weights").glob(f"{teacher.id}*")
    kept, wanted = load_file(path), host.model("mine").weights()
    assert all(torch.equal(kept[name], wanted[name]) for name in wanted)
    assert len(records["kd"].curves["top1"]) == 1
    offer = huggingface("mine", saved["roberta"], length=LENGTH)
    data = offer.dataset.load(small, False).test
    right = trained(offer)(data.inputs).argmax(dim=1) == data.targets
    assert teacher.measures["top1"] == pytest.approx(100 * right.float().mean())
