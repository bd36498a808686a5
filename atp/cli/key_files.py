"""Files that only their owner may read: private keys and identity files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from atp.errors import KeyInUse, KeyMissing
from atp.trust.keys import PrivateKey
from atp.wire.text_files import as_utf8

__all__ = ["read_key", "undone_on", "write_key", "write_private"]

OWNER_ONLY = 0o600
FOLDER_OWNER_ONLY = 0o700


def read_key(path: Path, *, alg: str | None = None) -> PrivateKey:
    """Read the key in a PEM file.

    Raises `KeyMissing` if the file can't be read, or an error of `PrivateKey.from_pem`.
    """
    try:
        return PrivateKey.from_pem(as_utf8(path.read_bytes(), what=str(path)), alg=alg)
    except OSError as exc:
        raise KeyMissing(f"no private key at {path} ({exc.strerror})") from exc


def write_key(path: Path, key: PrivateKey) -> None:
    """Write a new key file; raises `KeyInUse` if the file exists, because its key may be in use."""
    path.parent.mkdir(mode=FOLDER_OWNER_ONLY, parents=True, exist_ok=True)
    try:
        # O_EXCL: do not overwrite an existing key, and do not follow a symbolic link.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    except FileExistsError as exc:
        raise KeyInUse(
            f"{path} exists, and a key is never overwritten; choose another name"
        ) from exc
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.to_pem())


@contextmanager
def undone_on(*problems: type[Exception], path: Path) -> Iterator[None]:
    """If the block raises one of `problems`, remove the file `path` and folders made for it.

    Files and folders that existed before stay, and so do folders that are not empty.
    """
    made: Sequence[Path] = [one for one in (path, *path.parents) if not one.exists()]
    try:
        yield
    except problems:
        with suppress(OSError):
            for one in made:
                one.rmdir() if one.is_dir() else one.unlink()
        raise


def write_private(path: Path, data: bytes) -> None:
    """Write or replace a file atomically, readable by its owner only."""
    path.parent.mkdir(mode=FOLDER_OWNER_ONLY, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, OWNER_ONLY)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
