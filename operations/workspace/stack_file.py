"""Stack files: the committed `Pulumi.<environment>.yaml`, and the copy that Pulumi works with.

The copy is the committed file, plus what this machine adds, plus the salt that Pulumi itself writes. It is in a
git-ignored folder, so that trying the stack never changes a committed file. Each function here is pure or touches one
file.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from operations.errors import ProjectError, unusable
from stack.common.mistakes import InvalidSettingsError, Mistake
from stack.common.names import PROJECT, VARIABLE
from stack.common.secret_rules import CONFIGURED_SECRETS, fernet_key
from stack.settings.environment import Environment
from stack.settings.explain import field_at, written_as_text
from stack.settings.keys import key_of
from stack.settings.reading import read_environment

Document = dict[str, Any]

# Keys that say how the secrets of a stack are encrypted; one of them in the committed file is the team's choice.
ENCRYPTION_KEYS = ("encryptionsalt", "encryptedkey", "secretsprovider")

_CONFIG = "config"
_PLAIN = (str, int, float, tuple, type(None))  # an ordered mapping of YAML is a list of tuples

_PAUSES = (0.05, 0.15, 0.3)
"""Seconds before each further try to read a file."""
_HEADER = "# Made by `samokoder` at each run from {source} and from what this machine adds. Edit that file.\n"


def environments(root: Path) -> list[str]:
    """Return the environments that `root` has a stack file for."""
    return sorted(path.name.removeprefix("Pulumi.").removesuffix(".yaml") for path in root.glob("Pulumi.*.yaml"))


def committed(root: Path, environment: str) -> Document:
    """Return the committed stack file. Raises ProjectError when there is none, or when it is no YAML mapping."""
    path = root / f"Pulumi.{environment}.yaml"
    if not path.is_file():
        known = ", ".join(environments(root)) or "none"
        raise ProjectError(
            f"There is no environment {environment!r}: {path.name} does not exist. Environments here: {known}."
        )
    return checked(load(path), path.name)


def checked(document: Document, name: str) -> Document:
    """Return a stack file. Raises ProjectError where its configuration has no form that Pulumi reads. name: the file's.

    That is a mapping whose keys, at each depth, are text.
    """
    config = document.get("config") or {}
    if not isinstance(config, dict):
        raise ProjectError(f"{name}: `config:` must be a mapping, not a {type(config).__name__}.")
    if wrong := list(_misformed("config", config, ())):
        raise ProjectError(f"{name}: {'; '.join(wrong)}.")
    return document


def _misformed(path: str, value: Any, above: tuple[int, ...]) -> Iterator[str]:
    """Yield what is wrong with the keys of a value, and where it contains itself. above: ids of what it is in."""
    if id(value) in above:
        yield f"{path} contains itself"
        return
    inner: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        for key, one in value.items():
            named = f"{path}.{key if isinstance(key, str) else json.dumps(key, default=str).strip(chr(34))}"
            if not isinstance(key, str):
                yield f"{named} is a key that YAML does not read as text, so it needs quotes"
            inner.append((named, one))
    elif isinstance(value, list):
        inner = [(f"{path}[{index}]", one) for index, one in enumerate(value)]
    for named, one in inner:
        yield from _misformed(named, one, (*above, id(value)))


def load(path: Path) -> Document:
    """Return a YAML mapping, empty for a file that is not there. Raises ProjectError for anything else."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ProjectError(unusable(error)) from None
    try:
        return load_text(data.decode(), path.name)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ProjectError(f"{path.name}: line {line} is not UTF-8. Save the file in that encoding.") from None


class _Loader(yaml.SafeLoader):
    """A loader whose errors all name the line, also those of values that are none, such as the date 2026-02-30."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as error:
            raise yaml.constructor.ConstructorError(None, None, f"{error}", node.start_mark) from None


def noted(path: Path) -> Document:
    """Return what earlier runs have noted of this machine, without settings that this version of the program lacks.

    A newer version in the same clone may have noted them, and a backup after going back must not wait for an `up`.
    """
    found: Document = {}
    for key, value in load(path).items():
        name = str(key).removeprefix(f"{PROJECT}:")
        if isinstance(value, Mapping):
            found[key] = {inner: each for inner, each in value.items() if field_at([name, inner])[1] is not None}
        elif field_at([name])[1] is not None:
            found[key] = value
    return found


def load_text(text: str, name: str, *, of_history: bool = False) -> Document:
    """Return the mapping of a YAML text, empty for an empty one. Raises ProjectError that names the file.

    Also for a key that a mapping has twice: YAML's parser takes the last one without a word. of_history: not for that
    one, because earlier versions of this program have deployed such files.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if not of_history and (twice := list(_twice(node, "", set()))):
            raise ProjectError(f"{name} has a key twice: {'; '.join(twice)}. Keep one of them.")
        document = loader.construct_document(node) if node else None
    except yaml.YAMLError as error:
        raise ProjectError(f"{name} is not valid YAML: {error}") from None
    except RecursionError:
        raise ProjectError(f"{name} is not valid YAML: it is nested too deeply.") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ProjectError(f"{name} must be a mapping that has `config:`, not a {type(document).__name__}.")
    return document


def _twice(node: yaml.Node | None, path: str, seen: set[int]) -> Iterator[str]:
    """Yield each key that a mapping has more than once, with its lines. path: of the node. seen: ids of nodes."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    inner: list[tuple[str, yaml.Node]] = []
    lines: dict[str, list[int]] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.tag == "tag:yaml.org,2002:merge":
                inner.append((path, value))  # `<<` brings other keys, and may stand there more than once
                continue
            # Pulumi gives a key without a namespace that of the project.
            at = next(iter(_qualified({key.value: None}))) if path == _CONFIG else f"{path}.{key.value}".lstrip(".")
            lines.setdefault(at, []).append(key.start_mark.line + 1)
            inner.append((at, value))
    elif isinstance(node, yaml.SequenceNode):
        inner = [(f"{path}[{index}]", each) for index, each in enumerate(node.value)]
    for at, found in lines.items():
        if len(found) > 1:
            yield f"{at} in the lines {', '.join(map(str, found[:-1]))} and {found[-1]}"
    for at, value in inner:
        yield from _twice(value, at, seen)


def fill(first: Mapping[str, Any], second: Mapping[str, Any]) -> Document:
    """Return `first` with what only `second` has, mapping by mapping; where both have a value, the first stays."""
    result = dict(first)
    for key, value in second.items():
        if key not in result:
            result[key] = value
        elif isinstance(result[key], Mapping) and isinstance(value, Mapping):
            result[key] = fill(result[key], value)
    return result


def merged(
    document: Mapping[str, Any],
    *,
    machine: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
    encryption: Mapping[str, str] | None = None,
) -> Document:
    """Return the stack file that Pulumi works with.

    document: the committed file. machine: configuration that this machine adds where the file says nothing.
    extra: configuration that wins over the file (a test's own ports). encryption: the salt from earlier runs, taken
    only when the committed file has no encryption of its own.
    """
    config = fill(_qualified(extra or {}), _qualified(document.get("config") or {}))
    result = {key: value for key, value in document.items() if key != "config"}
    if not any(key in document for key in ENCRYPTION_KEYS):
        result |= encryption or {}
    return result | {"config": fill(config, machine)}


def section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a section of a merged stack file's configuration. Raises ProjectError for one that is written as text."""
    found = config.get(key_of(name)) or {}
    if not isinstance(found, Mapping):
        raise ProjectError(f"{key_of(name)} is written as text: write it as a mapping, as `config set --path` does.")
    return found


def encryption_of(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the part of a stack file that says how its secrets are encrypted."""
    return {key: document[key] for key in ENCRYPTION_KEYS if key in document}


def _qualified(config: Mapping[str, Any]) -> Document:
    """Give every key its namespace, as Pulumi does with a key that has none."""
    return {key if ":" in key else f"{PROJECT}:{key}": value for key, value in config.items()}


def read(stack: str, document: Mapping[str, Any], *, incomplete: bool = False) -> Environment:
    """Validate a stack file without Pulumi. Raises InvalidSettingsError with every mistake at once.

    incomplete: whether what an `up` needs may still be missing.

    Encrypted secrets cannot be read here, so only their presence is checked; Pulumi's own preview, which can read them,
    checks their values.
    """
    config = _qualified(document.get("config") or {})
    encrypted = {key for key, value in config.items() if _is_encrypted(value)}
    leaves = [leaf for key, value in config.items() if key not in encrypted for leaf in _leaves(key, value)]
    hidden = [
        Mistake(
            path,
            "an encrypted value",
            f"a plain value: secrets have keys of their own ({', '.join(CONFIGURED_SECRETS)}, and each name in "
            f"{key_of('application_secrets')})",
        )
        for path, value in leaves
        if _is_encrypted(value)
    ]
    if hidden:
        raise InvalidSettingsError(stack, hidden)
    as_text = ((key, written_as_text(key)) for key, value in config.items() if isinstance(value, str))
    others = {key: mistake for key, mistake in as_text if mistake}
    texts = {key: _text(value) for key, value in config.items() if key not in {*encrypted, *others}}
    texts |= {key: stand_in(key.removeprefix(f"{PROJECT}:")) for key in encrypted}
    others |= {
        path: _other(path, value)
        for path, value in leaves
        # A secret in plain text is refused whatever YAML calls it, by a rule that does not show it.
        if not isinstance(value, _PLAIN) and not _may_be_secret(path)
    }
    try:
        environment = read_environment(stack, texts, frozenset(encrypted), incomplete=incomplete)
    except InvalidSettingsError as error:
        rest = [mistake for mistake in error.mistakes if mistake.key not in others]
        raise InvalidSettingsError(stack, [*others.values(), *rest]) from None
    if others:
        raise InvalidSettingsError(stack, [*others.values()])
    return environment


def stand_in(secret: str) -> str:
    """Return a random value of the form that the secret must have, for one that cannot be read here."""
    value = secrets.token_urlsafe(96)
    forms = {
        "telegramBotToken": f"1234567890:{value}",
        "managedDatabaseUrl": f"postgresql://user:{value}@host/database",
        "managedRedisUrl": f"rediss://user:{value}@host/0",
        "alertWebhookUrl": f"https://host/{value}",
        "heartbeatUrl": f"https://host/{value}",
        "appSecretKey": fernet_key(value),  # valid in both of its forms
    }
    return forms.get(secret, value)


def _is_encrypted(value: Any) -> bool:
    return isinstance(value, Mapping) and set(value) == {"secure"}


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield path and value of everything in a setting that is no mapping or list, or is encrypted."""
    if isinstance(value, Mapping) and not _is_encrypted(value):
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}", inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(f"{path}[{index}]", inner)
    else:
        yield path, value


def _may_be_secret(path: str) -> bool:
    """Tell whether what is at a path of a stack file may be a secret, which no message may show."""
    name = re.split(r"[.\[]", path.removeprefix(f"{PROJECT}:"))[0]
    return name in {*CONFIGURED_SECRETS, "applicationSecrets", "application_secrets"} or bool(
        re.fullmatch(VARIABLE, name)
    )


def _other(path: str, value: Any) -> Mistake:
    """Return the mistake for a value that YAML has and JSON, in which Pulumi hands settings over, has not."""
    needs = "text in quotes, a number, true or false"
    if not isinstance(value, date):
        return Mistake(path, f"what YAML calls a {type(value).__name__}", needs)
    return Mistake(path, f"{value}, which YAML reads as a date", needs, f'{path}: "{value}"')


def _text(value: Any) -> str:
    """Return a configuration value as Pulumi hands it to a program: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def dump(document: Mapping[str, Any], *, source: str) -> str:
    """Return the text of a generated stack file, whose first line names the file that it is made from."""
    return _HEADER.format(source=source) + yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True)


def write(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write a file atomically, by default readable only by its owner; a missing folder is made with 0700.

    The file is on the disk when this returns, so that later steps may rely on it after a power cut.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(handle, mode)
            os.fsync(handle)
        Path(name).replace(path)
        _sync_folder(path.parent)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def written(path: Path) -> str | None:
    """Return the text of a file that `write` has made; None: there is none. Raises OSError where it cannot be read.

    A disk or a network's file system may fail for a moment: whoever takes that for "there is none" begins anew.
    """
    for pause in (*_PAUSES, None):
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            if not (path.parent.is_dir() and path.name in os.listdir(path.parent)):  # noqa: PTH208 - names
                return None
            if pause is None:
                raise OSError(errno.EIO, "its folder lists it, and it cannot be opened", str(path)) from None
        except OSError:
            if pause is None:
                raise
        time.sleep(pause)
    raise AssertionError  # the last try returns or raises


def remove(path: Path) -> None:
    """Remove a file if it exists, so that a power cut does not bring it back."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
