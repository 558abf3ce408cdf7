"""Basic authentication: Prometheus' and AlertManager's servers get a hash, VictoriaLogs and all clients the password.

exporter-toolkit's `web.config.file` guards every path, so health checks and scrapes need the password too; they read it
from a file.
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
    """Return the secret that is the password of a guarded page; empty if this environment uses no passwords."""
    return secret if environment.basic_auth else ""


def server_files(secret: str) -> Files:
    """Return the files of a guarded server: accepted users, and the login of its own health check.

    secret: empty for a server without a password, which needs no files.
    """
    if not secret:
        return {}
    return {
        WEB: Template((bcrypt_of(secret),), web_yml),
        CLIENT: yaml_text({"basic_auth": login(secret)}),
        **password_files(secret),
    }


def web_yml(bcrypt: str) -> str:
    """Render the server's list of users. bcrypt: the hash of the password."""
    return yaml_text({"basic_auth_users": {USER: bcrypt}})


def password_files(*secrets: str) -> Files:
    """Return a file for each password; empty names are skipped."""
    return {_file(secret): secret_file(secret) for secret in secrets if secret}


def login(secret: str) -> Mapping[str, str]:
    """Return the client's login, in the form that all of Prometheus' programs read."""
    return {"username": USER, "password_file": file_of(secret)}


def file_of(secret: str) -> str:
    """Return the path of the file with a password, in the container of a client."""
    return f"{FOLDER}/{_file(secret)}"


def basic_auth(secret: str) -> dict[str, Any]:
    """Return `basic_auth` for a scrape, a probe or an AlertManager; empty for a target without a password."""
    return {"basic_auth": dict(login(secret))} if secret else {}


def guarded(parts: Sequence[ServiceSpec]) -> list[str]:
    """Return the secrets that a client needs to request the pages of `parts`."""
    return sorted({part.web_password for part in parts if part.web_password})


def _file(secret: str) -> str:
    return f"{secret}_password"
