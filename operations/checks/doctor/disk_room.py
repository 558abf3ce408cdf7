"""A check of `doctor`: whether the disks of the engine's host have room for what may be written.

With Docker's own image store, images are in the engine's folder. With containerd's image store, the default of Docker
29, images are in containerd's folder, which may be on another disk.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from operations.errors import FailedError, UnavailableError

_SYSTEMS = "/run/containerd/containerd.sock"
_STORE = "io.containerd."

# The last column of `df` is the mount point: two folders with the same mount point share their free space.
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
    """Return the shell script that prints how much room there is, in KiB.

    info: the engine's answer to `docker info`. root: the engine's folder.
    """
    text = _OF_ENGINE.format(root=shlex.quote(root))
    status = {str(each[0]): str(each[1]) for each in info.get("DriverStatus") or () if len(each) > 1}
    if status.get("driver-type", "").startswith(_STORE):
        # A containerd that the engine starts has its folder below the engine's; the system's containerd names its
        # folder in /etc/containerd/config.toml.
        address = str((info.get("Containerd") or {}).get("Address") or _SYSTEMS)
        folder = "" if address.replace("/var/run/", "/run/") == _SYSTEMS else f"{root}/containerd/daemon"
        text += _OF_IMAGES.format(folder=shlex.quote(folder))
    return text


def judge(said: Mapping[str, str], root: str, needs: Mapping[str, int]) -> str:
    """Compare the room on the disks with what may be needed; return both in words.

    said: values that the script printed. root: the engine's folder. needs: what -> MiB; `images` may be on a disk of
    their own. Raises FailedError where the room is too small, UnavailableError where the host does not say.
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
