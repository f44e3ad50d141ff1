"""Parquet files by the types of their columns: for images, texts and recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from kdbench.api import UserError

Kind = Literal["encoded", "image", "integer", "text"]


def opened(path: Path) -> Any:
    """The `pyarrow.parquet.ParquetFile`, of which only the schema has been read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error


def read(path: Path, columns: list[str] | None = None) -> Any:
    """These columns of the file, or all, as a `pyarrow.Table`."""
    import pyarrow as pa

    try:
        return opened(path).read(columns)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} cannot be read as parquet: {error}\n  fetch the file again"
    )


def is_kind(kind: Kind, column: Any) -> bool:
    """Whether a column of this type holds such things.

    "encoded" is {bytes, path} of an image or a recording; an "image" may be bytes too.
    """
    import pyarrow as pa

    if kind == "integer":
        return bool(pa.types.is_integer(column))
    if kind == "text":
        return bool(pa.types.is_string(column) or pa.types.is_large_string(column))
    if pa.types.is_struct(column):
        return {"bytes", "path"} <= {part.name for part in column}
    plain = pa.types.is_binary(column) or pa.types.is_large_binary(column)
    return bool(plain and kind == "image")


def columns(schema: Any, kind: Kind) -> list[str]:
    """Names of the columns of this kind."""
    return [str(field.name) for field in schema if is_kind(kind, field.type)]


def one_column(path: Path, schema: Any, kind: Kind, preferred: str = "") -> str:
    """The column of this kind, or that of several which has the preferred name.

    Raises UserError, with the columns that there are, where the choice is not clear.
    """
    found = columns(schema, kind)
    if preferred in found:
        return preferred
    if len(found) == 1:
        return found[0]
    named = f", or one named {preferred!r}," if preferred else ""
    raise UserError(
        f"{path}: needs one {kind} column{named} and has {described(schema)}"
    )


def described(schema: Any) -> str:
    """The columns and their types, in words for a message."""
    return ", ".join(f"{f.name} ({f.type})" for f in schema) or "no columns"
