"""A file system of its own that a test can fill, damage and unmount; only root can have one."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path


@contextmanager
def small_disk(mib: int, *, owner: int | None = None) -> Iterator[Path]:
    """Mount an empty file system of so many MiB, gone afterwards.

    Everybody may go there; owner: uid and gid to whom it belongs, and then nothing at all is in it.
    """
    folder = Path(tempfile.mkdtemp(prefix="samokoder-test-", dir="/mnt"))
    folder.chmod(0o755)
    image, mounted = folder / "image", folder / "mounted"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(mib * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], check=True)
    if owner is not None:
        (mounted / "lost+found").rmdir()
        os.chown(mounted, owner, owner)
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)
    shutil.rmtree(folder)


@contextmanager
def small_disk_of_root(mib: int, *, owner: int | None = None) -> Iterator[Path | None]:
    """Do what `small_disk` does; give None where only another user is there: the test that needs it says so."""
    with small_disk(mib, owner=owner) if os.geteuid() == 0 else nullcontext() as mounted:
        yield mounted
