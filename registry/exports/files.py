"""The files of exports, in `ATP_EXPORT_DIR`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from django.conf import settings

KEPT_FREE_BYTES = 1 << 30  # of the disk, for the hub itself


def path_of(name: str) -> Path:
    """Return the path of an export's file."""
    return Path(settings.ATP_EXPORT_DIR) / name


def write_at(name: str, offset: int, chunks: Iterable[bytes]) -> int:
    """Write behind the first `offset` bytes, cut off what was there; return the new size.

    The bytes are on the disk when it returns. Raises `OSError` if that fails or the disk is almost
    full.
    """
    path = path_of(name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if shutil.disk_usage(path.parent).free < KEPT_FREE_BYTES:
        raise OSError("the disk is almost full")
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        file.truncate(offset)
        file.seek(offset)
        for chunk in chunks:
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


def delete(name: str) -> None:
    """Delete an export's file if there is one."""
    path_of(name).unlink(missing_ok=True)
