"""Random streams: hashed, independent, and free of the global generator."""

from __future__ import annotations

import torch

from kdbench.engine.streams import generator, global_stream, seed_of


def test_streams_depend_on_every_part_of_the_purpose():
    seeds = {seed_of(0, "order", 1), seed_of(1, "order", 1), seed_of(0, "order", 2)}
    assert len(seeds) == 3
    assert seed_of(1, 23) != seed_of(12, 3)


def test_a_stream_is_the_same_every_time():
    first, second = generator(3, "init"), generator(3, "init")
    assert torch.equal(torch.rand(5, generator=first), torch.rand(5, generator=second))


def test_the_global_generator_is_put_back():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with global_stream(0, "init"):
        torch.rand(100)
    assert torch.equal(torch.rand(3), expected)
