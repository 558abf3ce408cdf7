"""The real program, `__main__.py`, run against an engine that records what is registered and makes nothing.

Pulumi's own mocks tell neither a resource's options nor where a secret is, and validate nothing. `record` runs the
program once and returns every registration as it went over the wire, secrets marked.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import json
import logging
import os
import pickle
import re
import runpy
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import quote

import pulumi
import yaml
from google.protobuf import json_format  # type: ignore[import-untyped]
from pulumi.runtime import mocks, resource, rpc, set_mocks
from pulumi.runtime.proto.source_pb2 import StackTrace
from pulumi.runtime.settings import SETTINGS, get_root_resource
from pulumi.runtime.stack import Stack as PulumiStack
from pulumi.runtime.stack import run_pulumi_func

from stack.common.names import PROJECT, VARIABLE
from stack.common.secret_rules import CONFIGURED_SECRETS
from stack.parts.api import spec as api
from stack.parts.worker import spec as worker
from stack.settings.environment import Environment
from stack.settings.reading import read_environment

ROOT = Path(__file__).resolve().parents[1]

CONTAINER = "docker:index/container:Container"
VOLUME = "docker:index/volume:Volume"
NETWORK = "docker:index/network:Network"
IMAGE = "docker:index/remoteImage:RemoteImage"
GENERATED = "random:index/randomPassword:RandomPassword"
VERSION = "random:index/randomId:RandomId"

DIGEST = "sha256:" + "0123456789abcdef" * 4
Config = Mapping[str, Any]


@dataclass(frozen=True)
class Leaf:
    """One value of a resource's inputs: `uploads[0].content`, whether it travels as a secret, and the value itself."""

    path: str
    value: Any
    secret: bool


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One registration. `inputs` has the plain values, `leaves` each of them with its secretness."""

    urn: str
    type: str
    name: str
    parent: str
    inputs: dict[str, Any]
    leaves: tuple[Leaf, ...]
    protect: bool
    retain_on_delete: bool
    delete_before_replace: bool | None
    replace_on_changes: frozenset[str]
    ignore_changes: frozenset[str]
    dependencies: frozenset[str]
    import_id: str
    aliases: frozenset[str]
    """Logical names that it had before."""
    provider: str

    @property
    def identity(self) -> str:
        """What a rename changes: type, logical name, parent, and the name on the engine without a content's hash."""
        name = str(self.inputs.get("name", "-")) if self.type.startswith("docker:") else "-"
        head, files, _ = name.rpartition("-files-")
        if files:
            name = f"{head}{files}<content>"
        elif self.type == IMAGE:
            name = name.partition("@")[0].rpartition(":")[0] + ":<version>"
        return f"{self.type} {self.name} parent={self.parent or '-'} name={name}"


@dataclass(frozen=True, kw_only=True)
class Recording:
    """All that one run of the program registered, logged and exported."""

    environment: Environment
    resources: tuple[Recorded, ...]
    outputs: Mapping[str, Any]
    """Exported values."""
    secret_outputs: frozenset[str]
    component_outputs: tuple[Leaf, ...]
    """What the components register as their outputs: it is in the state as well."""
    log: tuple[tuple[int, str], ...]
    left: int
    """Outputs that were not ready when the program had ended."""
    secrets: Mapping[str, str]
    """Every secret value of this run by its name: what must be nowhere in plain text."""

    def of_type(self, type_: str) -> list[Recorded]:
        """Return the registrations of one type, by name."""
        return sorted((r for r in self.resources if r.type == type_), key=lambda r: r.name)

    def one(self, type_: str, name: str) -> Recorded:
        """Return the one registration of this type and name."""
        found = [resource for resource in self.of_type(type_) if resource.name == name]
        assert len(found) == 1, f"expected one {type_} {name!r}, there are {len(found)}"
        return found[0]

    def containers(self) -> dict[str, Recorded]:
        """Return the parts' containers by part, without the carriers of their files."""
        return {r.name: r for r in self.of_type(CONTAINER) if r.inputs.get("start") is not False}

    def carriers(self) -> dict[str, Recorded]:
        """Return the carriers by their part."""
        return {r.name.removesuffix("-files"): r for r in self.of_type(CONTAINER) if r.inputs.get("start") is False}


def secret_value(name: str, length: int = 40) -> str:
    """Return a secret for tests: letters and digits, the same for the same name and for no other."""
    alphabet = string.ascii_letters + string.digits
    digest = b"".join(hashlib.sha512(f"{name}/{block}".encode()).digest() for block in range(length // 64 + 1))
    return "".join(alphabet[byte % len(alphabet)] for byte in digest[:length])


class _Engine(mocks.Mocks):
    """Gives back what a provider would compute."""

    def __init__(self) -> None:
        self.generated: dict[str, str] = {}

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        raise AssertionError(f"the program asks {args.token}: a preview must not depend on a provider's answer")

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        state = dict(args.inputs)
        if args.typ == GENERATED:
            generation = state["keepers"]["generation"]
            value = secret_value(f"{args.name}/{generation}", int(state["length"]))
            self.generated[args.name] = value
            # As it goes over the wire: an Output made here would be a task of this thread's loop, which ends before it.
            for output, text in (("result", value), ("bcryptHash", f"$2b$10${secret_value(value, 53)}")):
                state[output] = {rpc._special_sig_key: rpc._special_secret_sig, "value": text}
        if args.typ == VERSION:
            digest = hashlib.sha256(f"{args.name}/{json.dumps(state['keepers'])}".encode())
            state["hex"] = digest.hexdigest()[: 2 * int(state["byteLength"])]
        return f"{args.name}-id", state


class _Monitor(mocks.MockMonitor):
    """Keeps every registration with its options, which mocks are not told."""

    def __init__(self, engine: _Engine) -> None:
        super().__init__(engine)
        self.requests: list[tuple[str, Any]] = []
        self.outputs: list[Leaf] = []

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 - the name of the remote call
        # On a thread of the executor, where the mock makes a loop that nobody closes.
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            response = super().RegisterResource(request)  # type: ignore[no-untyped-call]
        finally:
            asyncio.set_event_loop(None)
            loop.close()
        self.requests.append((response.urn, request))
        return response

    def RegisterResourceOutputs(self, request: Any) -> Any:  # noqa: N802 - the name of the remote call
        self.outputs.extend(_leaves(json_format.MessageToDict(request.outputs), request.urn.rpartition("::")[2]))
        return super().RegisterResourceOutputs(request)  # type: ignore[no-untyped-call]


class _Log(logging.Handler):
    def __init__(self) -> None:
        super().__init__(level=logging.INFO)
        self.said: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append((record.levelno, record.getMessage()))


def wire_config(values: Config) -> dict[str, str]:
    """Return configuration as Pulumi hands it to a program: text as it is, everything else as JSON text."""
    return {
        key if ":" in key else f"{PROJECT}:{key}": value if isinstance(value, str) else json.dumps(value)
        for key, value in values.items()
    }


def committed_config(stack: str) -> dict[str, Any]:
    """Return the configuration of the committed stack file."""
    document = yaml.safe_load((ROOT / f"Pulumi.{stack}.yaml").read_text(encoding="utf-8"))
    return {key.removeprefix(f"{PROJECT}:"): value for key, value in document["config"].items()}


def merged(first: Config, second: Config) -> dict[str, Any]:
    """Return `first` with `second` over it, object by object."""
    result = dict(first)
    for key, value in second.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


TELEGRAM_TOKEN = "123456789:" + secret_value("telegram", 35)
# Who knows such an address may post there: it is a secret as a whole.
HEARTBEAT_URL = f"https://beat.example.org/{secret_value('heartbeat')}"
WEBHOOK_URL = f"https://hooks.example.org/{secret_value('webhook')}"
# A percent sign, a slash, a colon and an at sign, as a URL has to write them.
DATABASE_PASSWORD = "p@ss/w:rd%" + secret_value("database", 20)
DATABASE_URL = (
    f"postgresql://app%40team:{quote(DATABASE_PASSWORD, safe='')}@db.example.org:6432/samokoder?sslmode=require"
)
REDIS_PASSWORD = "r@d/s#" + secret_value("redis", 20)
REDIS_URL = f"rediss://default:{quote(REDIS_PASSWORD, safe='')}@cache.example.org:6380/0"

_OWN = "registry.example.org/samokoder"
_PROD: Config = {
    "api": {"image": f"{_OWN}/api:1.4.2@{DIGEST}", "command": list(api.COMMAND)},
    "worker": {"image": f"{_OWN}/worker:1.4.2@{DIGEST}", "command": list(worker.COMMAND)},
    "alertmanager": {"telegram": {"chatId": -1001234567890}},
    "telegramBotToken": TELEGRAM_TOKEN,
    "heartbeatUrl": HEARTBEAT_URL,
    "alerts": {"runbooksUrl": "https://git.example.org/team/samokoder/docs/runbooks"},
    "ingress": {"domain": "samokoder.example.org", "port": 80},
    "migrations": {"command": ["alembic", "upgrade", "head"]},
    "backup": {"offsite": {"endpoint": "https://s3.example.org", "bucket": "samokoder-backups"}},
    "s3AccessKeyId": secret_value("s3_id", 20),
    "s3SecretAccessKey": secret_value("s3_secret"),
    "backupEncryptionKey": secret_value("backup_encryption_key"),
}
_EMAIL: Config = {
    "smarthost": "smtp.example.org:587",
    "sender": "alerts@example.org",
    "recipient": "oncall@example.org",
    "username": "alerts@example.org",
}

# Case -> stack, and what is configured on top of the committed stack file.
CASES: Mapping[str, tuple[str, Config]] = {
    "staging": ("staging", {}),
    "prod": ("prod", _PROD),
    # And users come by IPv6 too.
    "managed": (
        "prod",
        merged(
            _PROD,
            {"managedDatabaseUrl": DATABASE_URL, "managedRedisUrl": REDIS_URL, "network": {"ipv6": True}},
        ),
    ),
    "without-grafana": ("staging", {"unavailable": ["grafana"]}),
    "frontend": ("staging", {"frontend": {"image": f"{_OWN}/frontend:2.0.0@{DIGEST}"}}),
    "email-and-keys": (
        "staging",
        {
            "alertmanager": {"email": _EMAIL},
            "smtpPassword": secret_value("smtp"),
            "openaiApiKey": secret_value("openai"),
            "anthropicApiKey": secret_value("anthropic"),
            "openrouterApiKey": secret_value("openrouter"),
            "secretKey": secret_value("secret_key", 86),
            "appSecretKey": secret_value("app_secret_key", 86),
            "postgresSuperuserPassword": secret_value("superuser"),
            "applicationSecrets": ["SMTP_PASSWORD", "GITHUB_CLIENT_SECRET"],
            "SMTP_PASSWORD": secret_value("smtp of the application"),
            "GITHUB_CLIENT_SECRET": secret_value("github"),
        },
    ),
    "every-receiver": (
        "staging",
        {
            "alertmanager": {"language": "ru", "telegram": {"chatId": -1001234567890}, "email": _EMAIL},
            "telegramBotToken": TELEGRAM_TOKEN,
            "smtpPassword": secret_value("smtp"),
            "alertWebhookUrl": WEBHOOK_URL,
            "heartbeatUrl": HEARTBEAT_URL,
        },
    ),
    # A provider that allows replication; the key of the off-site copies is generated.
    "physical": (
        "prod",
        merged(
            _PROD,
            {"managedDatabaseUrl": DATABASE_URL, "backup": {"physical": True}, "backupEncryptionKey": ""},
        ),
    ),
    "opted-in": (
        "staging",
        {
            "api": {"secretsInEnvironment": ["SECRET_KEY", "SAMOKODER_DATABASE_URL"]},
            "worker": {"secretsInEnvironment": ["REDIS_PASSWORD"]},
        },
    ),
}


def environment_of(stack: str, values: Config) -> Environment:
    """Read an environment from `values` alone, its secrets encrypted as they have to be."""
    config = wire_config(values)
    return read_environment(stack, config, encrypted(config))


def encrypted(config: Mapping[str, str]) -> frozenset[str]:
    """Return the keys that are secrets."""
    names = {key: key.removeprefix(f"{PROJECT}:") for key in config}
    return frozenset(key for key, name in names.items() if name in CONFIGURED_SECRETS or re.fullmatch(VARIABLE, name))


def case_config(case: str) -> tuple[str, dict[str, Any]]:
    """Return stack and whole configuration of a case."""
    stack, values = CASES[case]
    return stack, merged(committed_config(stack), values)


def case_environment(case: str) -> Environment:
    """Return the environment of a case."""
    return environment_of(*case_config(case))


def record_case(case: str) -> Recording:
    """Run the program for a case."""
    return record(*case_config(case))


shared: Path | None = None
"""Folder in which the processes of one run of the tests find what another one has recorded; None: there is none."""


def record(stack: str, values: Config) -> Recording:
    """Run `__main__.py` for a stack that is configured with `values`; once for all tests: a recording never changes.

    Raises SystemExit, with what was logged as its notes, where the program ends itself.
    """
    return _recorded_once(stack, json.dumps(wire_config(values)))


@cache
def _recorded_once(stack: str, wire: str) -> Recording:
    if shared is None:
        return record_anew(stack, json.loads(wire))
    kept = shared / hashlib.sha256(f"{stack} {wire}".encode()).hexdigest()
    if kept.exists():
        made: Recording = pickle.loads(kept.read_bytes())  # noqa: S301 - one of this run
        return made
    made = record_anew(stack, json.loads(wire))
    begun = kept.with_suffix(f".{os.getpid()}")
    begun.write_bytes(pickle.dumps(made))
    begun.replace(kept)
    return made


def record_anew(
    stack: str, config: dict[str, str], *, program_file: Path = ROOT / "__main__.py", preview: bool = False
) -> Recording:
    """Run it once more, in a context and a loop of its own. config: as Pulumi hands it to a program."""
    secret_keys = sorted(encrypted(config))
    engine, log = _Engine(), _Log()
    monitor = _Monitor(engine)
    exported: dict[str, Any] = {}
    secret_outputs: set[str] = set()
    left: list[int] = []

    async def program() -> None:
        # Contexts without one of their own share the first, and in it the tasks of a loop that is closed.
        SETTINGS.outputs = set()
        logger = logging.Logger("recorded", logging.INFO)  # noqa: LOG001 - of this run alone, so no handler outlives it
        logger.addHandler(log)
        set_mocks(engine, project=PROJECT, stack=stack, preview=preview, monitor=monitor, logger=logger)
        pulumi.runtime.set_all_config(config, secret_keys)

        def run() -> None:
            try:
                runpy.run_path(str(program_file))
            except SystemExit as ended:
                for _, message in log.said:
                    ended.add_note(message)
                raise

        async def whole() -> None:
            root = get_root_resource()
            assert isinstance(root, PulumiStack)
            # The mocks' own stack takes no `pulumi.run` any more; that of a real run does, and awaits it.
            root._async_program_registration_closed = False
            run()
            if entrypoint := root._take_async_program():
                await entrypoint()
            left.append(len(SETTINGS.outputs))

        await run_pulumi_func(whole)
        root = get_root_resource()
        assert isinstance(root, PulumiStack)
        for name, value in root.outputs.items():
            output = pulumi.Output.from_input(value)
            exported[name] = await output.future()
            if await output.is_secret():
                secret_outputs.add(name)

    environment = {
        "PULUMI_CONFIG": json.dumps(config),
        "PULUMI_CONFIG_SECRET_KEYS": json.dumps(secret_keys),
    }
    # Pulumi waits for the first of its hundreds of tasks, then again for all others: a third of the time of a run.
    all_at_once = mock.patch.object(asyncio, "FIRST_COMPLETED", asyncio.FIRST_EXCEPTION)
    # For each resource it looks up every line of the stack, for a service of its maker's that is not asked here.
    from_nowhere = mock.patch.object(resource, "_get_stack_trace", StackTrace)
    with mock.patch.dict(os.environ, environment), all_at_once, from_nowhere, asyncio.Runner() as runner:
        runner.run(program(), context=contextvars.Context())
    urns = dict(monitor.requests)
    assert len(urns) == len(monitor.requests), "two resources share type and name: the real engine refuses that"
    return Recording(
        environment=read_environment(stack, config, frozenset(secret_keys)),
        resources=tuple(sorted((_recorded(urn, r) for urn, r in urns.items()), key=lambda r: (r.type, r.name))),
        outputs=exported,
        secret_outputs=frozenset(secret_outputs),
        component_outputs=tuple(monitor.outputs),
        log=tuple(log.said),
        left=left[0],
        secrets=engine.generated | {key.removeprefix(f"{PROJECT}:"): config[key] for key in secret_keys if config[key]},
    )


def _recorded(urn: str, request: Any) -> Recorded:
    tree = json_format.MessageToDict(request.object)
    return Recorded(
        urn=urn,
        type=request.type,
        name=request.name,
        parent=request.parent.rpartition("::")[2],
        inputs=_plain(tree),
        leaves=tuple(_leaves(tree)),
        protect=request.protect,
        retain_on_delete=request.retainOnDelete,
        delete_before_replace=request.deleteBeforeReplace if request.deleteBeforeReplaceDefined else None,
        replace_on_changes=frozenset(request.replaceOnChanges),
        ignore_changes=frozenset(request.ignoreChanges),
        dependencies=frozenset(request.dependencies),
        import_id=request.importId,
        aliases=frozenset(alias.spec.name for alias in request.aliases),
        provider=request.provider,
    )


def _is_secret(node: Any) -> bool:
    return isinstance(node, dict) and node.get(rpc._special_sig_key) == rpc._special_secret_sig


def _plain(node: Any) -> Any:
    """Return the inputs without the marks of secrets; whole numbers as int, for the wire has floats alone."""
    if _is_secret(node):
        return _plain(node["value"])
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    return int(node) if isinstance(node, float) and node.is_integer() else node


def _leaves(node: Any, path: str = "", secret: bool = False) -> Iterator[Leaf]:
    if _is_secret(node):
        yield from _leaves(node["value"], path, secret=True)
    elif isinstance(node, dict):
        for key, value in node.items():
            yield Leaf(f"{path}.{key}", key, secret)  # a key is seen as well: labels and log options
            yield from _leaves(value, f"{path}.{key}" if path else key, secret)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _leaves(value, f"{path}[{index}]", secret)
    else:
        yield Leaf(path, node, secret)
