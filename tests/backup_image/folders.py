"""Backups as they lie on the disk, built without any server: what is looked at, told, kept and removed."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from samokoder_backup import restore, settings, state
from samokoder_backup.__main__ import main
from samokoder_backup.settings import Kind

SEGMENT_SIZE = 16 * 2**20
NEVER = "0 0 1 1 *"


def settings_document(**changes: object) -> dict[str, Any]:
    """Settings of a server that keeps everything, and does nothing by itself."""
    postgres = {"host": "postgres", "port": 5432, "database": "samokoder", "user": "backup", "sslmode": "disable"}
    return {
        "postgres": postgres,
        "physical": True,
        "slot": "backup",
        "redis": {"host": "redis", "port": 6379, "user": "backup", "tls": False},
        "schedules": dict.fromkeys(("base", "dump", "redis", "workspace", "verify", "drill"), NEVER),
        "recovery_window_days": 7,
        "dumps": {"latest": 4, "daily": 7, "weekly": 4, "monthly": 6},
        "redis_copies": 48,
        "workspace": None,
        "workspace_copies": 7,
        "max_slot_wal_mib": 256,
        "superuser": "postgres",
        "session_options": "",
        "offsite": None,
        **changes,
    }


def segment(number: int, timeline: int = 1) -> str:
    """Return the name of a WAL file."""
    return f"{timeline:08X}{number >> 8:08X}{number & 255:08X}"


@dataclass(frozen=True)
class Home:
    """The folder of all backups."""

    root: Path
    now: datetime

    @property
    def settings(self) -> settings.Settings:
        return settings.Settings.model_validate(settings_document())

    def ago(self, **passed: float) -> datetime:
        return self.now - timedelta(**passed)

    def server(self, history: str = "7000-1") -> Path:
        path = self.root / "barman" / f"main-{history}"
        for name in ("meta", "base", "wals", "streaming"):
            (path / name).mkdir(parents=True, exist_ok=True)
        return path

    def wal(self, number: int, written: datetime, history: str = "7000-1", *, received: bool = False) -> Path:
        """Lay down a WAL file: archived, or as it is being received."""
        server, name = self.server(history), segment(number, int(history.split("-")[1]))
        path = server / "streaming" / f"{name}.partial" if received else server / "wals" / name[:16] / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(b"wal", mtime=0))
        os.utime(path, (written.timestamp(), written.timestamp()))
        return path

    def base(
        self,
        end: datetime,
        number: int = 1,
        history: str = "7000-1",
        *,
        status: str = "DONE",
        verified: bool = True,
        identifier: str = "",
    ) -> str:
        """Lay down a base backup that begins and ends in one WAL file, which is there too. identifier: its own."""
        server, name = self.server(history), segment(number, int(history.split("-")[1]))
        identifier = identifier or f"{end:%Y%m%dT%H%M%S}"
        info = server / "meta" / f"{identifier}-backup.info"
        done = {"begin_wal": name, "end_wal": name, "end_time": end.isoformat(sep=" ")} if status == "DONE" else {}
        said = {"mode": "postgres", "status": status, **done, "xlog_segment_size": SEGMENT_SIZE, "version": 150020}
        info.write_text("".join(f"{key}={value}\n" for key, value in sorted(said.items())))
        data = server / "base" / identifier / "data"
        data.mkdir(parents=True)
        files = {"backup.info": info}
        for each, content in (("base.tar.gz", "archive"), ("backup_manifest", '{"Files": []}')):
            (data / each).write_text(content)
            files[f"data/{each}"] = data / each
        if verified:
            known = {key: hashlib.sha256(path.read_bytes()).hexdigest() for key, path in files.items()}
            (data.parent / "samokoder.json").write_text(json.dumps(known))
        self.wal(number, end, history)
        return identifier

    def copy(self, finished: datetime, kind: Kind = "dump") -> str:
        """Lay down a dump, or a copy of Redis."""
        folder, suffix = (self.root / "dumps", ".dump") if kind == "dump" else (self.root / "redis", ".rdb")
        folder.mkdir(exist_ok=True)
        identifier = f"{kind}-{finished:%Y%m%dT%H%M%SZ}"
        content = identifier.encode()
        (folder / f"{identifier}{suffix}").write_bytes(content)
        note = {"finished": finished.isoformat(), "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        (folder / f"{identifier}.json").write_text(json.dumps(note))
        return identifier

    def files(self) -> dict[str, bytes]:
        """All files below, but for what the program notes for itself."""
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and path.parent != self.root
        }

    def listed(self, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
        """What `samokoder-backup list` says: backup -> its state."""
        capsys.readouterr()
        assert main(["list", "--json"]) == 0
        return {entry["id"]: entry["status"] for entry in json.loads(capsys.readouterr().out)}


def home_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Let the program keep its backups in a folder."""
    (folder / "etc").mkdir()
    (folder / "etc" / "backup.json").write_text(json.dumps(settings_document()))
    root = folder / "backups"
    root.mkdir()
    monkeypatch.setattr(settings, "CONFIG", folder / "etc")
    monkeypatch.setattr(settings, "ROOT", root)
    monkeypatch.setattr(settings, "RUN", folder / "run")
    for name, of in (("BARMAN_HOME", "barman"), ("DUMPS", "dumps"), ("REDIS_COPIES", "redis"), ("SCRATCH", "scratch")):
        monkeypatch.setattr(settings, name, root / of)
    monkeypatch.setattr(settings, "DRILL_REQUEST", root / "drill.json")
    monkeypatch.setattr(settings, "DRILL", folder / "drill")
    settings.DRILL.mkdir()
    monkeypatch.setattr(state, "_memory", {})
    monkeypatch.setattr(state, "_beside", {})
    monkeypatch.setattr(restore, "_installed", lambda: 15)
    now = datetime.now(UTC).replace(microsecond=0)
    state.record("verify", {"bad": {}, "finished": now.timestamp(), "whole": now.timestamp()})
    return Home(root, now)


def one_wrong_byte(path: Path, at: int = 0) -> None:
    """Change one byte of a file, not its time."""
    data, stamp = bytearray(path.read_bytes()), path.stat()
    data[at] ^= 0x40
    path.write_bytes(data)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


class Rounds:
    """Ends the service's loop after so many looks."""

    def __init__(self, left: int) -> None:
        self.left = left

    def wait(self, _seconds: float) -> bool:
        self.left -= 1
        return self.left < 0
