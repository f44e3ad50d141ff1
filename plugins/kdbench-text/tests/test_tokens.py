"""Vocabulary and ids: the same everywhere, nothing lost, padding only at the end."""

import os
import subprocess
import sys

import torch
from kdbench_text.tokens import EMPTY, encode, learn_vocabulary
from tokenizers.decoders import ByteLevel

TEXTS = [
    "a warm and funny film",
    "a cold and slow film",
    "warm , funny , slow",
    "the film , the warm one",
] * 3

PRINT_IDS = """
import random
from kdbench_text.tokens import learn_vocabulary
letters = random.Random(0).choices("abcdefgh ", k=20_000)  # many ties in frequency
texts = "".join(letters).split(" ")
found = learn_vocabulary(texts, 700).get_vocab()
print(sorted(found.items(), key=lambda item: item[1]))
"""


def test_ids_are_the_same_in_every_process_and_with_any_number_of_threads():
    answers = set()
    for threads in ("1", "3"):
        done = subprocess.run(
            [sys.executable, "-c", PRINT_IDS],
            env={**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads},
            capture_output=True,
            text=True,
            check=True,
        )
        answers.add(done.stdout)
    assert len(answers) == 1
    assert answers.pop().count("), (") == 699


def test_ids_stay_below_the_size():
    tokenizer = learn_vocabulary(TEXTS, 270)
    assert tokenizer.get_vocab_size() == 270
    ids, _ = encode(tokenizer, TEXTS, 40)
    assert ids.max() < 270


def test_no_character_is_lost():
    """Bytes stand for what the training texts never had."""
    tokenizer = learn_vocabulary(TEXTS, 300)
    for text in ("naïve café", "日本", "zzz\u0085zzz", "\ttab"):
        [found] = tokenizer.encode_batch_fast([text])
        words = [tokenizer.id_to_token(i) for i in found.ids]
        assert ByteLevel().decode(words).strip() == text.strip()


def test_padding_is_zero_at_the_end_and_nowhere_else():
    tokenizer = learn_vocabulary(TEXTS, 300)
    ids, cut = encode(tokenizer, ["warm", "a warm [PAD] film", "film"], 12)
    assert cut == 0
    assert ids.dtype == torch.int64
    assert ids.shape == (3, 12)
    for row in ids:
        length = int((row != 0).sum())
        assert (row[:length] != 0).all()
        assert (row[length:] == 0).all()


def test_an_empty_text_is_one_token():
    tokenizer = learn_vocabulary(TEXTS, 300)
    ids, _ = encode(tokenizer, ["", "warm"], 4)
    assert ids[0].tolist() == [EMPTY, 0, 0, 0]
    assert EMPTY not in ids[1]


def test_long_texts_are_cut_and_counted():
    tokenizer = learn_vocabulary(TEXTS, 300)
    whole, none = encode(tokenizer, TEXTS, 40)
    lengths = (whole != 0).sum(dim=1)
    at = int(lengths.min())
    ids, cut = encode(tokenizer, TEXTS, at)
    assert none == 0
    assert cut == int((lengths > at).sum()) > 0
    assert torch.equal(ids, whole[:, :at])
