"""Fitted estimators as bytes, through skops: loading them runs no code of the file's.

skops rebuilds only types on its list of scikit-learn's and numpy's, on ours, and on
those that the author of a model names. Trees hold indices that scikit-learn follows
unchecked, so these are checked here before anything is predicted.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kdbench import UserError

TREES = (
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
)
"""Types that skops leaves to the reader to trust, whose content `check_trees` sees."""
SCHEMA = "schema.json"
THE_DATE = (1980, 1, 1, 0, 0, 0)
"""Of every entry in the archive: the first that the format knows."""


def to_bytes(thing: Any, name: str, trusted: Sequence[str]) -> bytes:
    """A fitted estimator of the model `name`, the same bytes for the same content.

    Raises UserError where it cannot be stored, or not be read again for its types.
    """
    import skops.io

    try:
        data = skops.io.dumps(thing)
        missing = set(skops.io.get_untrusted_types(data=data)) - {*TREES, *trusted}
    except Exception as error:
        raise UserError(
            f"model {name!r}: the fitted estimator cannot be stored by skops "
            f"({error}); leave out what is no number, text, array or estimator of "
            "scikit-learn"
        ) from error
    if missing:
        raise UserError(
            f"model {name!r}: the fitted estimator holds types that nobody vouches "
            f"for: {', '.join(sorted(missing))}; where they are harmless, name them in "
            "estimator(..., trusted=[...])"
        )
    return canonical(data)


def from_bytes(data: bytes, name: str, trusted: Sequence[str]) -> Any:
    """What `to_bytes` stored. Raises UserError for other types and damaged content."""
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        return skops.io.loads(data, trusted=[*TREES, *trusted])
    except UntrustedTypesFoundException as error:
        raise UserError(
            f"the stored weights of model {name!r} hold types that are not trusted and "
            f"were not loaded ({error}); do not use this file unless you know who made "
            "it, and train the model again"
        ) from error
    except Exception as error:
        raise UserError(
            f"the stored weights of model {name!r} cannot be read: {error}; train the "
            "model again"
        ) from error


def canonical(data: bytes) -> bytes:
    """A skops archive with its addresses in memory and dates taken out, and packed.

    skops names every object by its address; here it is a number in order of appearance.
    """
    ids: dict[int, int] = {}
    files: dict[str, str] = {}

    def renamed(node: Any) -> Any:
        if isinstance(node, list):
            return [renamed(item) for item in node]
        if not isinstance(node, dict):
            return node
        fresh = {key: renamed(value) for key, value in node.items()}
        if isinstance(fresh.get("__id__"), int):
            fresh["__id__"] = ids.setdefault(fresh["__id__"], len(ids) + 1)
        if isinstance(fresh.get("file"), str):
            suffix = fresh["file"].rpartition(".")[2]
            file = f"{len(files)}.{suffix}"
            fresh["file"] = files.setdefault(fresh["file"], file)
        return fresh

    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        schema = json.dumps(renamed(json.loads(old.read(SCHEMA))))
        new.writestr(_entry(SCHEMA), schema)
        for before, after in files.items():
            new.writestr(_entry(after), old.read(before))
    return packed.getvalue()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, THE_DATE)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def check_trees(thing: Any, width: int, name: str) -> None:
    """Raise UserError where a tree in `thing` points outside itself or its inputs.

    A child must come after its parent, so that no walk down a tree is endless.
    """
    for part in _parts(thing, set()):
        kind = f"{type(part).__module__}.{type(part).__name__}"
        if kind == TREES[0]:
            nodes = part.__getstate__()["nodes"]
            fields = ("left_child", "right_child", "feature")
            inner = nodes["left_child"] != -1
        elif kind == TREES[1]:
            nodes, fields = part.nodes, ("left", "right", "feature_idx")
            inner = nodes["is_leaf"] == 0
            inner |= nodes["is_categorical"] != 0
        else:
            continue
        left, right, feature = (nodes[f][inner].astype(np.int64) for f in fields)
        own = np.flatnonzero(inner)
        sound = (left > own) & (right > own) & (left < len(nodes))
        sound &= (right < len(nodes)) & (feature >= 0) & (feature < width)
        if kind == TREES[1]:
            sound &= nodes["is_categorical"][inner] == 0
        if not len(nodes) or not sound.all():
            raise UserError(
                f"the stored weights of model {name!r} are damaged: a tree points "
                "outside itself; train the model again"
            )


def _parts(thing: Any, seen: set[int]) -> Iterator[Any]:
    """Everything inside an estimator, each object once."""
    if id(thing) in seen or isinstance(thing, str | bytes | int | float | None):
        return
    seen.add(id(thing))
    yield thing
    inside: Any = ()
    if isinstance(thing, dict):
        inside = thing.values()
    elif isinstance(thing, list | tuple | set):
        inside = thing
    elif isinstance(thing, np.ndarray):
        inside = thing.ravel() if thing.dtype == object else ()
    elif not isinstance(thing, type):
        inside = getattr(thing, "__dict__", {}).values()
    for part in inside:
        yield from _parts(part, seen)
