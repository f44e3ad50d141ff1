"""Texts and their token ids.

A byte-level byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909; bytes as in
Radford et al. 2019) leaves no text without ids, so there is no unknown word.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from torch import Tensor

from kdbench_text.reading import PADDING

EMPTY = 1
"""Id of the one token of a text without any (0 is padding)."""


def learn_vocabulary(texts: Sequence[str], size: int) -> Tokenizer:
    """An encoding of at most `size` ids, learned from these texts only.

    The same texts in the same order give the same ids.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=True)  # a word is one anywhere
    trainer = BpeTrainer(
        vocab_size=size,
        special_tokens=["[PAD]", "[EMPTY]"],  # ids 0 and 1, in this order
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer, len(texts))
    return tokenizer


def encode(
    tokenizer: Tokenizer, texts: Sequence[str], length: int
) -> tuple[Tensor, int]:
    """(N, length) int64 ids, padded with 0, and how many texts were cut to fit.

    A text that says "[PAD]" or is empty is read as one EMPTY token, never as padding.
    """
    ids = np.full((len(texts), length), PADDING, dtype=np.int64)
    cut = 0
    for row, found in enumerate(tokenizer.encode_batch_fast(texts)):
        own = [token for token in found.ids if token != PADDING] or [EMPTY]
        cut += len(own) > length
        own = own[:length]
        ids[row, : len(own)] = own
    return torch.from_numpy(ids), cut
