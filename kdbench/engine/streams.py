"""Random streams by hashing: no stream depends on who else runs.

Each is derived from (seed, purpose, ...), never drawn from a shared generator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def seed_of(*purpose: object) -> int:
    """63-bit seed of a stream; equal purposes give equal streams everywhere."""
    text = "\x1f".join(map(str, purpose)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def generator(*purpose: object) -> torch.Generator:
    """A fresh CPU generator for this purpose."""
    return torch.Generator().manual_seed(seed_of(*purpose))


def seed_global(seed: int, device: torch.device) -> None:
    """Point torch's global generators at a stream (dropout can use no other)."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)


@contextmanager
def global_stream(*purpose: object) -> Iterator[None]:
    """Run a block, such as a model's initialisation, on its own stream."""
    before = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed_of(*purpose))
    try:
        yield
    finally:
        torch.default_generator.set_state(before)
