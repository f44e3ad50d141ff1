"""Where kdbench keeps what can be made again: decoded images, trained teachers."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_dir() -> Path:
    """The folder named by `KDBENCH_CACHE`, else the user's cache folder.

    It may not exist yet.
    """
    named = os.environ.get("KDBENCH_CACHE")
    return Path(named).expanduser() if named else user_cache_path("kdbench")
