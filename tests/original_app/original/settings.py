"""What both processes read, from the environment alone: no file, no `_FILE`, no Redis user and no Redis password."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.fernet import Fernet

ENVIRONMENT = os.environ["ENVIRONMENT"]
DATABASE_URL = os.environ["SAMOKODER_DATABASE_URL"].replace("postgresql+asyncpg://", "postgresql://")
SECRET_KEY = os.environ["SECRET_KEY"]
# A secret that only it knows: without it no process starts.
SMTP_PASSWORD = os.environ["SMTP_PASSWORD"]
REDIS_HOST = os.environ["REDIS_HOST"]
REDIS_PORT = int(os.environ["REDIS_PORT"])
VERSION = os.environ.get("VERSION", "0")
# Raises ValueError for any key that is not 32 bytes in URL-safe Base64.
FERNET = Fernet(os.environ["APP_SECRET_KEY"])

WORKSPACE = Path("/app/workspace")
CONFIG = Path("/app/config")


def prepare() -> None:
    """Write where it writes whenever it starts: its configuration, the shared folder, its home."""
    (CONFIG / "config.json").write_text('{"models": []}', encoding="utf-8")
    (WORKSPACE / "projects").mkdir(exist_ok=True)
    cache = Path.home() / ".cache"
    cache.mkdir(exist_ok=True)
    (cache / "original").write_text(VERSION, encoding="utf-8")
