"""A small disk of a test's own, which can be filled up. It takes the right to mount one."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

MIB = 2**20


class NoMount(Exception):
    """Nothing can be mounted on this machine; the message says why."""


class Disk:
    """A mounted file system that can be filled up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Leave no free block."""
        with suppress(OSError), self._ballast.open("ab", buffering=0) as ballast:
            for size in (64 * MIB, MIB, 4_096):
                with suppress(OSError):
                    while True:
                        end = os.fstat(ballast.fileno()).st_size
                        os.posix_fallocate(ballast.fileno(), end, size)

    def free(self) -> None:
        """Give the space back; do nothing if the disk was not filled."""
        self._ballast.unlink(missing_ok=True)

    @property
    def _ballast(self) -> Path:
        return self.folder / "ballast"


@contextmanager
def mounted_disk(mib: int) -> Iterator[Disk]:
    """Mount a disk of so many MiB in memory, whose folder every account may use.

    Raises `NoMount` if nothing can be mounted here.
    """
    with ExitStack() as mounted:
        folder = Path(mounted.enter_context(tempfile.TemporaryDirectory(prefix="atp-disk-")))
        folder.chmod(0o755)
        _run(["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=1777", "tmpfs", str(folder)])
        mounted.callback(_run, ["umount", "--lazy", str(folder)])
        yield Disk(folder)


@contextmanager
def disk_in_a_file(mib: int) -> Iterator[Disk]:
    """Mount a disk of so many MiB that is a file, so that fsync writes to the machine's disk.

    Raises `NoMount` if nothing can be mounted here.
    """
    with ExitStack() as mounted:
        place = Path(mounted.enter_context(tempfile.TemporaryDirectory(prefix="atp-disk-")))
        place.chmod(0o755)
        image, folder = place / "image", place / "disk"
        with image.open("wb") as file:
            file.truncate(mib * MIB)
        folder.mkdir()
        _run(["mkfs.ext4", "-q", "-m", "0", str(image)])  # root gets no reserve
        _run(["mount", "-o", "loop", str(image), str(folder)])
        mounted.callback(_run, ["umount", "--lazy", str(folder)])
        folder.chmod(0o1777)
        yield Disk(folder)


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError as gone:
        raise NoMount(f"there is no program {command[0]} on this machine") from gone
    if done.returncode:
        raise NoMount(f"nothing can be mounted here: {done.stderr.strip()}")
