"""Read from the containers of a stopped compose project where its files are and which keys it has.

The keys are needed to read its data: the key that encrypts users' API keys is in the old `.env` and in no volume.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from operations.errors import ProjectError
from operations.workspace import kept_secrets, pulumi_state
from operations.workspace.pulumi import PulumiRun
from operations.workspace.workspace import Workspace
from stack.common.names import PROJECT, VARIABLE
from stack.common.secret_rules import CONFIGURED_SECRETS, SecretInput, check_secrets, is_fernet_key
from stack.settings.app import LLM_KEYS
from stack.settings.application_secrets import GIVEN
from stack.settings.keys import key_of
from stack.settings.tree import Settings
from stack.spec.rotation import label

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

PROJECT_LABEL = "com.docker.compose.project"
KEYS: Mapping[str, str] = {
    "secretKey": "SECRET_KEY",
    "appSecretKey": "APP_SECRET_KEY",
    **LLM_KEYS,
    "telegramBotToken": "TELEGRAM_BOT_TOKEN",
}
"""Secret of the configuration -> its name in the old environment."""
_OPENS_DATA = "appSecretKey"
_APP_KEY = label("app_secret_key")
_NAMED_SO = re.compile(r"(?:SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|TOKEN$|KEY(_ID)?$|PASS$)(?!.*_(?:FILE|PATH)$)")
_URL_WITH_LOGIN = re.compile(r"[\w+.-]+://[^/\s@]+@")
_PLAIN_VALUE = re.compile(r"\d{1,6}|true|false|yes|no|on|off", re.IGNORECASE)
# Of services that this stack has with passwords of its own, and of the image of Python.
_NOT_NEEDED = frozenset(
    {
        *("POSTGRES_PASSWORD", "PGPASSWORD", "REDISCLI_AUTH", "DATA_SOURCE_NAME", "DATA_SOURCE_PASS", "GPG_KEY"),
        *("GRAFANA_ADMIN_PASSWORD", "GF_SECURITY_ADMIN_PASSWORD", "GF_SECURITY_SECRET_KEY"),
    }
)


def _containers(client: docker.DockerClient, project: str) -> list[Container]:
    # The project is stopped, so stopped containers are listed too; one that is removed meanwhile is skipped.
    return client.containers.list(all=True, filters={"label": f"{PROJECT_LABEL}={project}"}, ignore_removed=True)


def mounted_at(client: docker.DockerClient, project: str, path: str) -> str:
    """Return the volume or the folder of the host that a project's containers mount at a path; empty: none.

    Raises ProjectError where they mount different ones.
    """
    places = {
        str(mount.get("Name") or mount["Source"])
        for container in _containers(client, project)
        for mount in container.attrs["Mounts"]
        if mount["Destination"].rstrip("/") == path
    }
    if len(places) > 1:
        raise ProjectError(f"The containers of {project} have different folders at {path}: {', '.join(sorted(places))}")
    return next(iter(places), "")


def keys_of(
    client: docker.DockerClient, project: str, names: Mapping[str, str] = KEYS, *, of: str = "", again: str = ""
) -> dict[str, str]:
    """Return the keys in the environment of a project's containers: name of the secret in this stack -> value.

    names: those secrets -> their names there. of: the container whose value is taken where they have different ones of
    one key. again: the command, as it is typed, that another `of` is added to. Raises ProjectError where there is no
    container, and where two have different values of one key and none of them is chosen.
    """
    containers = _containers(client, project)
    if not containers:
        raise ProjectError(
            f"There is no container of {project} on this engine any more, so nobody knows its keys but its .env: set "
            f"them by hand (docs/migrating-from-compose.md)."
        )
    there = [str(each.name) for each in containers]
    if of and of not in there:
        raise ProjectError(f"{project} has no container {of} on this engine. It has: {', '.join(sorted(there))}.")
    found = {secret: _holders(containers, name) for secret, name in names.items()}
    chosen = {
        secret: value
        for secret, holders in found.items()
        for value, who in holders.items()
        if len(holders) == 1 or of in who
    }
    if unclear := {names[secret]: holders for secret, holders in found.items() if holders and secret not in chosen}:
        raise ProjectError(_unclear(project, unclear, again))
    return chosen


def _unclear(project: str, found: Mapping[str, Mapping[str, Sequence[str]]], again: str) -> str:
    """Say which containers have which values. found: name of a key -> value -> containers. again: as for `keys_of`."""
    lines = [
        f"  {name}: {'; another one: '.join(', '.join(sorted(who)) for who in holders.values())}"
        for name, holders in sorted(found.items())
    ]
    one = min(next(iter(holders.values()))[0] for holders in found.values())
    return "\n".join(
        [
            f"Containers of {project} have different values of one key, so nothing was written:",
            *lines,
            f"Name the container whose values opened what is stored: {again} ARGS='--keys --keys-of {one}'",
        ]
    )


def _holders(containers: Iterable[Container], name: str) -> dict[str, list[str]]:
    """Return each value that containers have of a variable -> the names of those containers."""
    found: dict[str, list[str]] = {}
    for each in containers:
        for value in _values([each], name):
            found.setdefault(value, []).append(str(each.name))
    return found


def _values(containers: Iterable[Container], name: str) -> set[str]:
    """Return the values that containers have of a variable; an empty value is none."""
    lines = [line.partition("=") for each in containers for line in each.attrs["Config"]["Env"] or ()]
    return {value for variable, _, value in lines if variable == name and value}


def _unlisted_secrets(client: docker.DockerClient, project: str, known: Collection[str]) -> list[str]:
    """Return the other variables of a project's containers that may be secrets of the application, by name and value.

    known: names of variables that are left out. Those that this stack gives are left out, too.
    """
    lines = [line for each in _containers(client, project) for line in each.attrs["Config"]["Env"] or ()]
    given = {(name, value) for name, _, value in (line.partition("=") for line in lines)}
    left_out = GIVEN | _NOT_NEEDED | set(known)
    found = {name for name, value in given if name not in left_out and _looks_secret(name, value)}
    return sorted(found)


def _looks_secret(name: str, value: str) -> bool:
    if not re.fullmatch(VARIABLE, name):
        return False
    if _NAMED_SO.search(name):
        return bool(value) and not _PLAIN_VALUE.fullmatch(value)
    return bool(_URL_WITH_LOGIN.match(value))


def bring_keys(workspace: Workspace, project: str, *, of: str = "") -> str:
    """Write the keys of a project into the environment's stack file, encrypted; return what is to be done now.

    of: the container whose value is taken where the project's containers have different ones of one key.
    A key that is already configured stays, and a key that this stack refuses is left out. Each of
    `samokoder:applicationSecrets` is such a key, too. Raises ProjectError where APP_SECRET_KEY is refused, and writes
    no key then: the stored data cannot be read without it.
    """
    environment = workspace.settings()
    listed = environment.settings.application_secrets
    names = {**KEYS, **{name: name for name in listed}}
    client = workspace.client()
    try:
        found = keys_of(client, project, names, of=of, again=workspace.typed(f"import-compose PROJECT={project}"))
        unlisted = _unlisted_secrets(client, project, names.values())
    finally:
        client.close()
    new = {name: value for name, value in found.items() if name not in environment.configured_secrets}
    stack = workspace.open()
    here = _configured_here(stack) if environment.configured_secrets else {}
    refused = _refused(environment.settings, new, here, opens_data=found.get(_OPENS_DATA))
    if why := refused.get(_OPENS_DATA):
        raise ProjectError(f"Nothing was written. What is stored is encrypted with APP_SECRET_KEY, which is {why}.")
    new = {name: value for name, value in new.items() if name not in refused}
    run = stack.in_clone()
    for name, value in sorted(new.items()):
        run.pulumi("config", "set", "--secret", f"{PROJECT}:{name}", given=value)
        workspace.reporter.say(f"{names[name]}: written as {PROJECT}:{name}, encrypted")
    instead = {"secretKey": "a new one is generated, and whoever is logged in logs in again"}
    told = [
        f"{names[name]}: left out, {why}; {instead.get(name, 'set one by hand where it is needed')}"
        for name, why in sorted(refused.items())
    ]
    kept = sorted(found.keys() - new.keys() - refused.keys())
    told += [f"{names[name]}: {PROJECT}:{name} was set already, and stays" for name in kept]
    if is_fernet_key(found.get(_OPENS_DATA, "")) and not environment.settings.fernet:
        told.append(f"APP_SECRET_KEY is a Fernet key: set {key_of('app_secret_key_form')}: fernet, too")
    missing = [name for secret, name in KEYS.items() if secret in ("secretKey", _OPENS_DATA) and secret not in found]
    told += [f"{name}: no container of {project} was given it; set it by hand where it has one" for name in missing]
    by_hand = [name for name in listed if name not in found.keys() | environment.configured_secrets]
    told += [
        f"{name}: no container of {project} was given it; set it by hand: "
        + workspace.typed(f"pulumi ARGS='config set --secret {PROJECT}:{name}'")
        for name in by_hand
    ]
    if unlisted:
        told.append(_not_brought(workspace, project, listed, unlisted))
    # An environment that is up has begun with a key of its own, and `up` does not change that one by itself.
    now = workspace.open()
    others = kept_secrets.changed(workspace.settings(), now, now.deployment())
    up = kept_secrets.up_with(workspace, list(map(label, others))) if others else workspace.typed("up")
    told.append(f"They are used from the next `{up}` on.")
    return "\n".join(told)


def _not_brought(workspace: Workspace, project: str, listed: Sequence[str], unlisted: Sequence[str]) -> str:
    """Say which variables look like secrets and were not brought, and what to write for those that are needed."""
    again = workspace.typed(f"import-compose PROJECT={project} ARGS=--keys")
    key = key_of("application_secrets")
    return (
        f"Not brought, and may be secrets: {', '.join(unlisted)}. List those that the application needs in "
        f"{workspace.committed_file.name}, and then again `{again}`:\n  {key}: [{', '.join([*listed, *unlisted])}]"
    )


def _refused(
    settings: Settings, new: Mapping[str, str], here: Mapping[str, str], *, opens_data: str | None
) -> dict[str, str]:
    """Return the keys that this stack refuses: name -> reason. SECRET_KEY is refused if it equals `opens_data`.

    here: the values that are configured. opens_data: the old APP_SECRET_KEY, also where that is not written now.
    """
    given = {name: SecretInput(value, encrypted=True) for name, value in {**here, **new}.items()}
    found = {
        name: mistake.given
        for mistake in check_secrets(given, fernet=settings.fernet, own_images=settings.own_images)
        if (name := mistake.key.removeprefix(f"{PROJECT}:")) in new
    }
    if "secretKey" in new and new["secretKey"] == opens_data:
        found["secretKey"] = "the same value as APP_SECRET_KEY (not shown)"
    return found


def _configured_here(stack: PulumiRun) -> dict[str, str]:
    """Return the values of the configured secrets."""
    names = {f"{PROJECT}:{name}": name for name in CONFIGURED_SECRETS}
    values = stack.configuration()
    return {names[key]: str(each["value"]) for key, each in values.items() if key in names and each.get("value")}


def lost_keys(workspace: Workspace, project: str) -> str:
    """Return a warning where this environment lacks a project's APP_SECRET_KEY, so that some data cannot be read.

    So it is also where two of its containers have different ones. Empty otherwise, and where the project's containers
    are gone, because its keys are then unknown.
    """
    environment, client = workspace.settings(), workspace.client()
    try:
        values = _values(_containers(client, project), KEYS[_OPENS_DATA])
    finally:
        client.close()
    if not values:
        return ""
    is_here = (
        _OPENS_DATA in environment.configured_secrets and _configured_here(workspace.open()).get(_OPENS_DATA) in values
    )
    if len(values) > 1:
        by_hand = workspace.typed(f"pulumi ARGS='config set --secret {key_of(_OPENS_DATA)}'")
        up = workspace.typed("up")
        with contextlib.suppress(ProjectError):  # there is no state before the first `up`
            # `up` refuses another key than the one in use, unless it is named.
            state = workspace.deployment()
            generated = pulumi_state.kept_origins(state).get(_APP_KEY) == "generated"
            if generated or _APP_KEY in pulumi_state.kept_marks(state):
                up = kept_secrets.up_with(workspace, [_APP_KEY])
        do = f" Set the one that they were encrypted with: {by_hand}, then {up}"
        return (
            f"Two containers of {project} have different values of APP_SECRET_KEY, and this environment has "
            f"{'one of them' if is_here else 'neither'}: what is encrypted with another one, such as the API keys of "
            f"its users, cannot be read here.{'' if is_here else do}"
        )
    if is_here:
        return ""
    return (
        f"APP_SECRET_KEY of {project} is not this environment's: what is encrypted with it, such as the API keys of "
        f"its users, cannot be read here. Bring it first: {workspace.typed(f'import-compose PROJECT={project}')} "
        "ARGS=--keys, which says what to type then"
    )
