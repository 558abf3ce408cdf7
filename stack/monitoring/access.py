"""Basic authentication of Prometheus and AlertManager: their servers get a hash, those who ask get the password.

exporter-toolkit's `web.config.file` guards every path, health checks and metrics too, so each of them asks with the
password from a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stack.settings.environment import Environment
from stack.spec.files import Files, Template, secret_file, yaml_text
from stack.spec.secrets import bcrypt_of
from stack.spec.service import ServiceSpec

USER = "samokoder"
FOLDER = "/etc/samokoder"
WEB = "web.yml"
CLIENT = "client.yml"
FLAG = f"--web.config.file={FOLDER}/{WEB}"
CLIENT_FLAG = f"--http.config.file={FOLDER}/{CLIENT}"


def password_of(environment: Environment, secret: str) -> str:
    """Return the secret with which a guarded page is asked in this environment; empty where none is asked for."""
    return secret if environment.basic_auth else ""


def server_files(secret: str) -> Files:
    """Return what a guarded server needs: whom it lets in, and how its own health check asks. Empty: nothing."""
    if not secret:
        return {}
    return {
        WEB: Template((bcrypt_of(secret),), web_yml),
        CLIENT: yaml_text({"basic_auth": login(secret)}),
        **password_files(secret),
    }


def web_yml(bcrypt: str) -> str:
    """Render the server's side. bcrypt: the hash of the password."""
    return yaml_text({"basic_auth_users": {USER: bcrypt}})


def password_files(*secrets: str) -> Files:
    """Return the file of each password; empty names need none."""
    return {_file(secret): secret_file(secret) for secret in secrets if secret}


def login(secret: str) -> Mapping[str, str]:
    """Return the asker's side, as Prometheus' programs read it everywhere."""
    return {"username": USER, "password_file": f"{FOLDER}/{_file(secret)}"}


def basic_auth(secret: str) -> dict[str, Any]:
    """Return `basic_auth` for a scrape, a probe or an AlertManager; nothing for one without a password."""
    return {"basic_auth": dict(login(secret))} if secret else {}


def guarded(parts: Sequence[ServiceSpec]) -> list[str]:
    """Return the secrets with which `parts` are asked."""
    return sorted({part.web_password for part in parts if part.web_password})


def _file(secret: str) -> str:
    return f"{secret}_password"
