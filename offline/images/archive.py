"""Tar archives, which the engine's API takes: equal entries give equal bytes."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO


@dataclass(frozen=True)
class Entry:
    """One thing of a tar archive: a folder (no content), a file, or a symbolic link."""

    path: str
    content: bytes | Path | None = None
    link: str = ""
    mode: int = 0o755
    owner: tuple[int, int] = (0, 0)
    capabilities: bytes = b""
    """Of a file, as the kernel keeps them; every byte below 128, which is all that a tar's header can hold."""


def tar_of(entries: Iterable[Entry]) -> IO[bytes]:
    """Return an uncompressed tar of `entries`, at its start; equal entries give equal bytes."""
    spool = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    with tarfile.open(fileobj=spool, mode="w") as archive:
        for entry in entries:
            member = tarfile.TarInfo(entry.path.lstrip("/"))
            member.mode = entry.mode
            member.uid, member.gid = entry.owner
            if entry.capabilities:
                member.pax_headers = {"SCHILY.xattr.security.capability": entry.capabilities.decode("ascii")}
            if entry.link:
                member.type, member.linkname = tarfile.SYMTYPE, entry.link
                archive.addfile(member)
            elif entry.content is None:
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            elif isinstance(entry.content, bytes):
                member.size = len(entry.content)
                archive.addfile(member, io.BytesIO(entry.content))
            else:
                member.size = entry.content.stat().st_size
                with entry.content.open("rb") as source:
                    archive.addfile(member, source)
    spool.seek(0)
    return spool
