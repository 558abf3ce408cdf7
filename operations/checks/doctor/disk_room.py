"""Of `doctor`: whether what may come fits on the disks of the engine's host.

With its own store an engine has images in its folder. With containerd's, the default of Docker 29, they are in
containerd's, which may be on another disk.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from operations.errors import FailedError, UnavailableError

_SYSTEMS = "/run/containerd/containerd.sock"
_STORE = "io.containerd."

# `df`'s last column is where the disk is mounted: two folders with the same one share their room.
_OF_ENGINE = 'df -Pk {root} 2>/dev/null | awk \'NR == 2 {{ print "disk", $4; print "disk-at", $NF }}\'\n'
_OF_IMAGES = """\
images={folder}
if [ -z "$images" ]; then
    images=$(sed -n '/^root *= */{{s///;s/["'"'"']//g;p;q;}}' /etc/containerd/config.toml 2>/dev/null)
    images=${{images:-/var/lib/containerd}}
fi
df -Pk "$images" 2>/dev/null |
    awk -v folder="$images" 'NR == 2 {{ print "images", $4; print "images-at", $NF; print "images-in", folder }}'
"""


def script(info: Mapping[str, Any], root: str) -> str:
    """Return the shell script that says how much room there is, in KiB.

    info: what the engine says; root: its folder.
    """
    text = _OF_ENGINE.format(root=shlex.quote(root))
    status = {str(each[0]): str(each[1]) for each in info.get("DriverStatus") or () if len(each) > 1}
    if status.get("driver-type", "").startswith(_STORE):
        # An engine that runs its own containerd has its folder in its own; the system's has its own in its settings.
        address = str((info.get("Containerd") or {}).get("Address") or _SYSTEMS)
        folder = "" if address.replace("/var/run/", "/run/") == _SYSTEMS else f"{root}/containerd/daemon"
        text += _OF_IMAGES.format(folder=shlex.quote(folder))
    return text


def judge(said: Mapping[str, str], root: str, needs: Mapping[str, int]) -> str:
    """Say whether what may come fits. said: what the script prints; needs: what -> MiB, of which one is `images`.

    Raises FailedError, and UnavailableError where the host does not say.
    """
    if not said.get("disk"):
        raise UnavailableError("the host does not say")
    rooms = [(root, int(said["disk"]), dict(needs))]
    if "images" in needs and said.get("images") and said.get("images-at") != said.get("disk-at"):
        rest = {what: mib for what, mib in needs.items() if what != "images"}
        rooms = [(root, int(said["disk"]), rest), (said["images-in"], int(said["images"]), {"images": needs["images"]})]
    told, full = [], False
    for folder, kib, wanted in rooms:
        each = ", ".join(f"{what} {mib}" for what, mib in wanted.items())
        full |= kib // 1024 < sum(wanted.values())
        told.append(f"{kib // 1024} MiB left in {folder}; up to {sum(wanted.values())} may be needed ({each})")
    why = f"{'. '.join(told)}, and your data beside them"
    if full:
        raise FailedError(why)
    return why
