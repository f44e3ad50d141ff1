"""Models of texts: padding changes nothing, taps are right, shapes need no data."""

import pickle
from functools import partial

import pytest
import torch
from kdbench_text.bag import Bag
from kdbench_text.convolutional import TextCNN
from kdbench_text.reading import WordDropout
from kdbench_text.recurrent import Bidirectional, BiLSTM, last_states
from kdbench_text.transformer import Attention, Transformer
from kdbench_text.zoo import MODELS, PAIRS
from torch import nn

from kdbench.measure.size import macs

WORDS, LENGTH, CLASSES = 50, 12, 3
SMALL = {
    "transformer": partial(
        Transformer, layers=2, width=8, heads=2, dropout=0.1, word_dropout=0.2
    ),
    "bilstm": partial(BiLSTM, embedding=6, width=5, dropout=0.1, word_dropout=0.2),
    "bag": partial(Bag, width=6, dropout=0.5, word_dropout=0.2),
    "textcnn": partial(TextCNN, embedding=6, filters=4, dropout=0.5, word_dropout=0.2),
}
each_kind = pytest.mark.parametrize("kind", SMALL)
each_model = pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.name)


def built(kind):
    torch.manual_seed(0)
    model = SMALL[kind]((LENGTH,), CLASSES, WORDS)
    for parameter in model.parameters():  # nothing may hide behind a zero
        if parameter.ndim == 1:
            nn.init.normal_(parameter, std=0.5)
    return model


def texts(*lengths, width=LENGTH):
    """Ids of these lengths; the same ids whatever stands beside them."""
    ids = torch.zeros(len(lengths), width, dtype=torch.int64)
    for row, length in enumerate(lengths):
        own = torch.Generator().manual_seed(length)
        ids[row, :length] = torch.randint(1, WORDS, (length,), generator=own)
    return ids


def tapped(spec, model, inputs):
    """Logits, and what the model's taps see."""
    seen = {}
    for name, path in spec.taps.items():
        module = model.get_submodule(path.removesuffix(":input"))
        if path.endswith(":input"):
            module.register_forward_pre_hook(
                lambda _m, args, name=name: seen.update({name: args[0]})
            )
        else:
            module.register_forward_hook(
                lambda _m, _args, output, name=name: seen.update({name: output})
            )
    return model(inputs), seen


@each_kind
def test_padding_changes_no_logit(kind):
    """A text has the same logits alone, padded, and beside a longer one."""
    model = built(kind).eval()
    for length in (1, 2, 3, 7):
        alone = model(texts(length, width=length))
        padded = model(texts(length))
        beside = model(texts(length, LENGTH))[:1]
        torch.testing.assert_close(padded, alone, rtol=0, atol=0)
        torch.testing.assert_close(beside, alone, rtol=1e-5, atol=1e-6)


@each_kind
def test_padding_has_no_gradient(kind):
    model = built(kind).eval()
    model(texts(2, 7)).square().sum().backward()
    table = next(m for m in model.modules() if isinstance(m, nn.Embedding))
    assert table.weight.grad[0].count_nonzero() == 0
    assert table.weight.grad.count_nonzero() > 0


@each_kind
def test_every_token_of_a_text_counts(kind):
    model = built(kind).eval()
    before = model(texts(7))
    for place in range(7):
        other = texts(7)
        other[0, place] = other[0, place] % (WORDS - 1) + 1
        assert not torch.allclose(model(other), before, atol=1e-7), place


@pytest.mark.parametrize("kind", [kind for kind in SMALL if kind != "bag"])
def test_order_counts(kind):
    model = built(kind).eval()
    ids = texts(7)
    back = ids.clone()
    back[0, :7] = ids[0, :7].flip(0)
    assert not torch.allclose(model(ids), model(back), atol=1e-6)


@each_kind
def test_only_padding_is_finite(kind):
    for model in (built(kind).eval(), built(kind).train()):
        logits = model(torch.zeros(2, LENGTH, dtype=torch.int64))
        assert torch.isfinite(logits).all()


@each_kind
def test_dropout_draws_from_the_global_stream(kind):
    model = built(kind).train()
    logits = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        logits.append(model(texts(5, 9)))
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])
    model.eval()
    assert torch.equal(model(texts(5, 9)), model(texts(5, 9)))


@each_kind
def test_a_fresh_model_is_a_function_of_the_seed(kind):
    first, second = (built(kind).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@each_kind
def test_bfloat16(kind):
    model = built(kind).bfloat16()
    logits = model(texts(2, 9))
    logits.float().square().sum().backward()
    assert torch.isfinite(logits).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@each_model
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_shapes_are_known_without_data(spec, mode):
    def shapes(inputs):
        model = spec.build((LENGTH,), CLASSES, WORDS).train(mode == "train")
        logits, seen = tapped(spec, model, inputs)
        return {name: tuple(x.shape) for name, x in {**seen, "logits": logits}.items()}

    with torch.device("meta"):
        found = shapes(torch.zeros(2, LENGTH, dtype=torch.int64))
    assert found == shapes(texts(LENGTH, 3))
    assert list(found) != []
    assert found["logits"] == (2, CLASSES)
    assert found["embeddings"][:2] == (2, LENGTH)
    if "stage1" in spec.taps:
        assert found["stage1"][:2] == (2, LENGTH)
    assert len(found["pooled"]) == 2


@each_model
def test_specification(spec):
    assert spec.tokens
    model = spec.build((LENGTH,), CLASSES, WORDS)
    assert isinstance(model.get_submodule(spec.classifier), nn.Linear)
    assert pickle.loads(pickle.dumps(spec)).name == spec.name  # noqa: S301 (our own)
    assert all(p.requires_grad for p in model.parameters())


@each_model
def test_a_longer_text_is_more_arithmetic(spec):
    """Of a bag of words only its classifier multiplies."""
    model = spec.build((LENGTH,), CLASSES, WORDS).eval()
    short, long = (macs(model, texts(length)) for length in (6, LENGTH))
    assert short > 0
    assert long > 1.5 * short or isinstance(model, Bag)


@each_model
def test_layers_are_zero_at_padding_and_cut_to_the_longest(spec):
    """What knows nothing of padding (a Gram matrix, a mean) then reads none."""
    model = spec.build((LENGTH,), CLASSES, WORDS).train()
    _, seen = tapped(spec, model, texts(3, 9))
    for name in seen:
        if name.startswith("stage"):
            assert seen[name].shape[1] == 9
            assert seen[name][0, 3:].count_nonzero() == 0
            assert seen[name][0, :3].count_nonzero() > 0


def test_attention_maps():
    """Probabilities, none of them on padding; the scores behind them."""
    spec = MODELS[0]
    torch.manual_seed(0)
    model = spec.build((LENGTH,), CLASSES, WORDS).eval()
    _, seen = tapped(spec, model, texts(3, 9))
    layers, heads = len(model.layers), 4
    assert seen["scores"].shape == (2, layers, heads, 9, 9)
    for layer in range(layers):
        maps = seen[f"attention{layer + 1}"]
        assert maps.shape == (2, heads, 9, 9)
        torch.testing.assert_close(maps.sum(dim=3), torch.ones(2, heads, 9))
        assert maps[0, :, :, 3:].max() == 0
        wanted = seen["scores"][0, layer, :, :, :3].softmax(dim=2)
        torch.testing.assert_close(maps[0, :, :, :3], wanted)


def test_scores_are_gathered_only_where_they_are_tapped():
    model = built("transformer")
    model.scores.forward = lambda _seen: pytest.fail("gathered for nobody")
    model(texts(3, 9))


def test_attention_is_torchs_own():
    torch.manual_seed(0)
    ours, theirs = Attention(8, 2), nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.project.weight)
        theirs.in_proj_bias.copy_(ours.project.bias)
        theirs.out_proj.weight.copy_(ours.join.weight)
        theirs.out_proj.bias.copy_(ours.join.bias)
    states, present = torch.randn(2, 5, 8), texts(3, 5, width=5) != 0
    wanted, _ = theirs(states, states, states, key_padding_mask=~present)
    torch.testing.assert_close(ours(states, present, []), wanted)


def test_the_backward_lstm_reads_each_text_from_its_own_end():
    torch.manual_seed(0)
    both = Bidirectional(4, 3)
    states = torch.randn(2, 6, 4)
    present = torch.arange(6) < torch.tensor([[6], [2]])
    found = both(states, present)
    for row, length in enumerate((6, 2)):
        own = states[row : row + 1, :length]
        ahead, _ = both.forwards(own)
        back, _ = both.backwards(own.flip(1))
        wanted = torch.cat((ahead, back.flip(1)), dim=2)
        torch.testing.assert_close(found[row : row + 1, :length], wanted)


def test_the_last_states_are_those_of_the_lstms_themselves():
    torch.manual_seed(0)
    both = Bidirectional(4, 3)
    states = torch.randn(2, 6, 4)
    present = torch.arange(6) < torch.tensor([[6], [2]])
    found = last_states(both(states, present), present)
    for row, length in enumerate((6, 2)):
        own = states[row : row + 1, :length]
        _, (ahead, _) = both.forwards(own)
        _, (back, _) = both.backwards(own.flip(1))
        torch.testing.assert_close(found[row], torch.cat((ahead[0, 0], back[0, 0])))


def test_word_dropout_hides_whole_tokens_and_scales_none():
    states = torch.ones(50, 40, 3)
    torch.manual_seed(0)
    hidden = WordDropout(0.3).train()(states)
    assert set(hidden.sum(dim=2).unique().tolist()) == {0.0, 3.0}
    assert (hidden == 0).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert torch.equal(WordDropout(0.3).eval()(states), states)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="10 does not split into 4 heads"):
        Attention(10, 4)


def test_pairs_name_models_that_exist():
    names = {spec.name for spec in MODELS}
    for pair in PAIRS:
        assert {*pair.teachers, *pair.students} <= names
