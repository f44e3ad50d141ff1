"""Files of random bytes to be packed, and parts of a state to be spoiled."""

from __future__ import annotations

import random

LIMIT = 60_000


def laid_out(folder, sizes, seed=0):
    """Files of random bytes by their paths in a state."""
    files = {}
    for path, size in sizes.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(random.Random(f"{path} {seed}").randbytes(size))  # noqa: S311
        files[path] = file
    return files


SIZES = {
    **{f"{k:012x}.json": 900 + k for k in range(20)},
    "speed-a_model_of_a_name_longer_than_tar_headers_hold" + 60 * "x" + ".json": 300,
    "weights/000000000000.safetensors": 25_000,
    "weights/000000000001.safetensors": 140_000,
    "imported/mine+1.safetensors": 9_000,
    "checkpoints/0000000000aa.ckpt": 200_000,
    "checkpoints/0000000000ab.ckpt": 10_000,
}


def parts(folder):
    return {p.name: p.stat() for p in folder.glob("part-*.tar")}


def damage(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[700] ^= 1
    (folder / name).write_bytes(content)
