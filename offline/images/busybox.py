"""The base for images of single programs: a shell with wget, the certificates, two users."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from offline.images.archive import Entry
from offline.images.recipes import ROOTFS


def busybox_entries(debs: Sequence[Path]) -> Iterator[Entry]:
    """Yield the tree of the busybox base from its two packages."""
    contents: dict[str, bytes] = {}
    for deb in debs:
        data = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                if (source := archive.extractfile(member)) is not None:
                    contents[member.name.removeprefix(".")] = source.read()
    program = next(content for path, content in contents.items() if path.endswith("/bin/busybox"))
    certificates = [content for path, content in sorted(contents.items()) if path.endswith(".crt")]
    for folder in (
        "/bin",
        "/etc",
        "/etc/ssl",
        "/etc/ssl/certs",
        "/usr",
        "/usr/bin",
        "/var",
        "/root",
        "/licenses",
    ):
        yield Entry(folder)
    yield Entry("/tmp", mode=0o1777)  # noqa: S108 - a path in the image
    yield Entry("/bin/busybox", program)
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "busybox"
        local.write_bytes(program)
        local.chmod(0o755)
        applets = subprocess.run([local, "--list"], capture_output=True, check=True, text=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            yield Entry(f"/bin/{applet}", link="busybox")
    yield Entry("/etc/ssl/certs/ca-certificates.crt", b"".join(certificates), mode=0o644)
    for path, content in sorted(contents.items()):
        if path.endswith("/copyright"):
            yield Entry(f"/licenses/{path.split('/')[-2]}", content, mode=0o644)
    for file in sorted((ROOTFS / "busybox").iterdir()):
        yield Entry(f"/etc/{file.name}", file, mode=0o644)
