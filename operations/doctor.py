"""`samokoder doctor`: whether an environment can be brought up, and after that whether it was.

Before `up` nothing is changed and nothing started: settings, secrets, the engine and its host, images, and what is
outside: Telegram, the mail server, the bucket. After it: the smoke test, a test alert, and what to look at in the first
day. A host is asked by a small shell script, here or through ssh, which reads and writes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import shlex
import smtplib
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import docker
import docker.errors
import httpx

from offline import registries
from offline.images.recipes import NAMES
from operations import (
    alerting,
    checks,
    collations,
    disk_room,
    in_the_way,
    lifecycle,
    pasted,
    public_name,
    reach,
    redis_log,
    smoke,
    ssh,
)
from operations.checks import Check, FailedError, Finding, NotConfiguredError, Once, Report, UnavailableError, Verdict
from operations.engine import EngineError, EngineInfo, connect, look, refuse_unless_startable
from operations.network import engine_rules, from_edge, ipv6, mtu, packet_filter
from operations.origins import third_party_images
from operations.project import Workspace, typed
from operations.stack_file import ProjectError
from stack.images import IMAGES, short_name
from stack.mistakes import InvalidSettingsError
from stack.monitoring import grafana
from stack.monitoring.alertmanager import integrations
from stack.names import ENVIRONMENT_LABEL
from stack.outputs import REACH_SOMEBODY
from stack.platform import specs
from stack.rotation import label
from stack.secret_rules import CONFIGURED_SECRETS, SecretInput, check_secrets
from stack.secrets import GENERATED, secret_names
from stack.service import ServiceSpec
from stack.settings import PROJECT, Environment, key_of

_OLDEST_ENGINE = (20, 10)
_MIB = 2**20
_IMAGES_MIB = 4096
"""All images of a stack, the team's own among them, with room for a second version."""
_LOG_MIB = 30
"""Of each container: three files of 10 MiB."""
_OVERCOMMIT_NEVER = "2"
_SMTPS = 465
_NO_PROGRAM, _SSH_FAILED = 127, 255  # exit codes of a shell and of ssh
_OK, _UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND = 200, 401, 403, 404


def doctor(workspace: Workspace, *, seconds: float = 20) -> Report:
    """Check an environment before `up`, and change nothing but one object in the bucket.

    seconds: that each check may take.
    """
    title = f"Before `{workspace.typed('up')}` of {workspace.name}"
    about = {"environment": workspace.name}
    try:
        environment = workspace.settings()
    except InvalidSettingsError as error:
        wrong = Finding(check="settings", verdict=Verdict.FAILED, why=pasted.told(error))
        rest = Finding(check="everything else", verdict=Verdict.NOT_AVAILABLE, why="it follows from the settings")
        return Report(title=title, about=about, findings=[wrong, rest])
    with contextlib.ExitStack() as open_:
        asked = Asked(workspace, environment, workspace.docker_host(), seconds, open_)
        with workspace.reporter.task(title) as task:
            return Report(title=title, about=about, findings=checks.run(list(every(asked)), seconds=seconds, task=task))


@dataclass(frozen=True)
class Engine:
    """What the engine says of itself."""

    client: docker.DockerClient
    info: EngineInfo
    limits: Mapping[str, Any]
    """Its answer to `docker info`."""


@dataclass(frozen=True)
class Facts:
    """What the engine's host says of itself; empty values where it does not know."""

    values: Mapping[str, str]
    listening: Sequence[tuple[str, int]]
    """Address and port of each TCP socket that somebody listens on."""

    @classmethod
    def parse(cls, text: str) -> Facts:
        """Read what `_FACTS` prints."""
        lines = [line.split() for line in text.splitlines()]
        values = {words[0]: words[1] for words in lines if len(words) == 2 and words[0] != "listens"}  # noqa: PLR2004
        return cls(values, [_socket(words[1]) for words in lines if words[:1] == ["listens"]])


# Beside the room on its disks. The kernel's tables of sockets need no right and no program.
_FACTS = """\
for name in vm/overcommit_memory net/ipv4/ip_forward; do
    test -r /proc/sys/$name && echo "$name $(cat /proc/sys/$name)"
done
test -e /dev/kmsg && echo "kmsg yes"
test -r /proc/net/tcp && echo "sockets yes"
echo "synchronised $(timedatectl show -p NTPSynchronized --value 2>/dev/null)"
awk '$4 == "0A" { print "listens", $2 }' /proc/net/tcp /proc/net/tcp6 2>/dev/null
true
"""


def _socket(text: str) -> tuple[str, int]:
    """Read an address of /proc/net/tcp: `0100007F:1F90` is 127.0.0.1 and 8080."""
    digits, _, port = text.partition(":")
    # Words of four bytes, each in the order of the machine, which is little-endian wherever Docker runs.
    words = [bytes.fromhex(digits[at : at + 8])[::-1] for at in range(0, len(digits), 8)]
    return str(ipaddress.ip_address(b"".join(words))), int(port, 16)


@dataclass(frozen=True)
class Asked:
    """An environment, and how what it needs is asked."""

    workspace: Workspace
    environment: Environment
    host: str
    """The engine's address."""
    seconds: float
    open: contextlib.ExitStack
    parts: Once[Sequence[ServiceSpec]] = field(init=False)
    engine: Once[Engine] = field(init=False)
    facts: Once[Facts] = field(init=False)
    secrets: Once[Mapping[str, SecretInput]] = field(init=False)
    unreachable: Once[Mapping[str, Sequence[str]]] = field(init=False)
    """Registries that do not answer."""

    def __post_init__(self) -> None:
        """Prepare the questions that several checks ask."""
        for name, ask in {
            "parts": lambda: specs(self.environment),
            "engine": self._engine,
            "facts": self._facts,
            "secrets": lambda: configured_secrets(self.workspace),
            "unreachable": lambda: registries.unreachable(
                {name: each.reference for name, each in IMAGES.items()}, self.engine().info
            ),
        }.items():
            object.__setattr__(self, name, Once(ask))

    @property
    def elsewhere(self) -> bool:
        """Whether the engine is not on this machine."""
        return not self.host.startswith("unix://")

    def _engine(self) -> Engine:
        try:
            info = look(self.host, cache=self.workspace.cache)
            client = connect(self.host, timeout=self.seconds)
        except EngineError as error:
            raise UnavailableError(f"no engine answers at {self.host}: {error}") from None
        self.open.callback(client.close)
        return Engine(client, info, client.info())

    def _facts(self) -> Facts:
        root, said = "/var/lib", dict[str, Any]()
        with contextlib.suppress(UnavailableError):
            root, said = self.engine().info.data_root or root, dict(self.engine().limits)
        return Facts.parse(self.shell(disk_room.script(said, root) + mtu.SCRIPT + ipv6.SCRIPT + _FACTS))

    def shell(self, script: str) -> str:
        """Run a script on the engine's host, and return what it prints."""
        done = self.run("sh", given=script)
        if done.returncode:
            raise UnavailableError(f"the host does not answer: {_last(done.stderr)}")
        return done.stdout

    def run(self, *words: str, given: str) -> subprocess.CompletedProcess[str]:
        """Run a program on the engine's host. given: its standard input. Raises UnavailableError where it cannot."""
        if self.host.startswith("tcp://"):
            raise UnavailableError(f"{self.host} leads to its engine alone, not to its host")
        command = [*ssh.command(self.host), shlex.join(words)] if self.elsewhere else list(words)
        try:
            done = subprocess.run(
                command, input=given, capture_output=True, text=True, timeout=self.seconds, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnavailableError(f"{words[0]} does not run on that host: {error}") from None
        if done.returncode in (_NO_PROGRAM, *((_SSH_FAILED,) if self.elsewhere else ())):
            raise UnavailableError(f"{words[0]} does not run on that host: {_last(done.stderr)}")
        return done

    def secret(self, name: str) -> str:
        """Return the value of a configured secret."""
        return self.secrets()[name].value

    def fact(self, name: str) -> str:
        """Return what the host says. Raises UnavailableError where it does not."""
        value = self.facts().values.get(name, "")
        if not value:
            raise UnavailableError("the host does not say")
        return value


def _last(said: str) -> str:
    return " ".join(said.split())[-300:]


def every(asked: Asked) -> Iterator[Check]:
    """Yield all that there is to ask, in the order of the report."""
    questions: dict[str, Callable[[Asked], str]] = {
        "settings": lambda asked: f"valid, {len(asked.parts())} parts",
        "secrets": _secrets,
        "engine": _engine,
        "memory and cores": _memory,
        "disk": _disk,
        "ports": _ports,
        "largest packet": _mtu,
        "IPv6": _ipv6,
        "docker's rules": _engine_rules,
        "packet filter": _packet_filter,
        "clock": _clock,
        "kernel": _kernel,
    }
    outside: dict[str, Callable[[Asked], str]] = {
        "public name": _public_name,
        "telegram": _telegram,
        "e-mail": _email,
        "grafana password": _grafana_password,
        "backup destination": _destination,
    }
    for name, ask in questions.items():
        yield Check(name=name, ask=partial(ask, asked))
    yield from _images(asked)
    for name, ask in outside.items():
        yield Check(name=name, ask=partial(ask, asked))


# Secrets


def configured_secrets(workspace: Workspace) -> Mapping[str, SecretInput]:
    """Return the configured secrets in plain text, as Pulumi decrypts them."""
    return secrets_of(workspace.open().configuration())


def secrets_of(config: Mapping[str, Mapping[str, Any]]) -> Mapping[str, SecretInput]:
    """Return the secrets among what is configured, as `PulumiRun.configuration` says it."""
    own = {key.removeprefix(f"{PROJECT}:"): value for key, value in config.items()}
    return {
        name: SecretInput(str(given.get("value", "")), encrypted=bool(given.get("secret")))
        for name, given in own.items()
        if name in CONFIGURED_SECRETS and given.get("value")
    }


def _secrets(asked: Asked) -> str:
    """Judge the values themselves: the stack file alone shows that there are some, and not what they are."""
    generated = [name for name in secret_names(asked.environment) if name in GENERATED]
    told = f"{len(generated)} are generated, of {min(GENERATED[name].length for name in generated)} characters or more"
    if not asked.environment.configured_secrets:
        return f"{told}; none is configured"
    authorities = {"database_ca": bool(asked.environment.database_ca), "redis_ca": bool(asked.environment.redis_ca)}
    if wrong := list(check_secrets(asked.secrets(), **authorities)):
        raise FailedError("\n".join(map(str, wrong)))
    return f"{told}; strong: {', '.join(sorted(asked.environment.configured_secrets))}"


# The engine and its host


def _engine(asked: Asked) -> str:
    try:
        engine = asked.engine()
    except UnavailableError as error:
        if asked.elsewhere:
            raise FailedError(str(error)) from None
        try:
            refuse_unless_startable(asked.host, reason=str(error))
        except EngineError as refused:
            raise FailedError(str(refused)) from None
        raise UnavailableError(f"{error}; `{asked.workspace.typed('up')}` installs and starts one") from None
    version = engine.info.version
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers < _OLDEST_ENGINE:
        raise FailedError(f"Docker Engine {version} is too old: {_OLDEST_ENGINE[0]}.{_OLDEST_ENGINE[1]} is the oldest")
    # Without them the kernel holds no container to its limits.
    lacking = [name for name, key in (("memory", "MemoryLimit"), ("CPU", "CpuCfsQuota")) if not engine.limits.get(key)]
    if lacking:
        raise FailedError(f"its kernel cannot limit {' and '.join(lacking)} of a container: enable these cgroups")
    folder = engine.info.data_root or "a folder that it does not tell"
    return f"Docker Engine {version} at {asked.host}, data in {folder}, cgroup v{engine.info.cgroup_version}"


def _memory(asked: Asked) -> str:
    parts = asked.parts()
    info = asked.engine().info
    needed, there = sum(spec.settings.memory_mib for spec in parts), info.memory_bytes // _MIB
    if needed > there:
        raise FailedError(f"the limits of all parts are {needed} MiB, and the host has {there} MiB")
    if greedy := [spec.part for spec in parts if spec.settings.cpus > info.cpus]:
        raise FailedError(f"the host has {info.cpus} cores, and these want more: {', '.join(greedy)}")
    return f"{needed} of {there} MiB by the limits of all parts, {info.cpus} cores"


def _disk(asked: Asked) -> str:
    settings, root = asked.environment.settings, asked.engine().info.data_root
    needs = {"images": _IMAGES_MIB, "logs": _LOG_MIB * len(asked.parts())}
    needs["metrics"] = _mib(settings.prometheus.retention_size)
    if asked.environment.physical_backups and not asked.environment.managed_database:
        needs["write-ahead log, when the backups fail"] = settings.backup.max_slot_wal_mib
    if _own_containers(asked):
        del needs["images"]  # they are there
    return disk_room.judge(asked.facts().values, root, needs)


def _mib(size: str) -> int:
    return int(size[:-2]) * {"MB": 1, "GB": 1024, "TB": 1024 * 1024}[size[-2:]]


def _own_containers(asked: Asked) -> list[Mapping[str, Any]]:
    name = asked.environment.name
    found = asked.engine().client.api.containers(filters={"label": f"{ENVIRONMENT_LABEL}={name}"})
    return list(found)


def _ports(asked: Asked) -> str:
    wanted = [(spec, each) for spec in asked.parts() for each in in_the_way.published(spec)]
    own = {str(each["Id"]) for each in _own_containers(asked)}
    held = in_the_way.held_ports(asked.engine().client)
    problems, ours = [], 0
    for spec, publish in wanted:
        holders = [each for address, port, each in held if in_the_way.clashes(publish, address, port)]
        others = [str(each["Names"][0]).lstrip("/") for each in holders if str(each["Id"]) not in own]
        where = f"{publish.address}:{publish.host_port} ({spec.part})"
        if others:
            problems.append(f"{where} is held by the container {others[0]}")
        elif holders:
            ours += 1
        elif any(in_the_way.clashes(publish, address, port) for address, port in asked.facts().listening):
            problems.append(f"{where} is held by another program of the host: ss -ltnp 'sport = :{publish.host_port}'")
    if problems:
        raise FailedError("; ".join(problems))
    if not asked.facts().values.get("sockets"):
        raise UnavailableError("no container has them; which other programs listen cannot be seen on this host")
    return f"{len(wanted)} ports are free" + (f", {ours} of them held by this environment itself" if ours else "")


def _mtu(asked: Asked) -> str:
    networks = mtu.found(asked.environment, asked.engine().client)
    return mtu.judge(asked.environment, networks, mtu.Uplink.parse(asked.facts().values))


def _ipv6(asked: Asked) -> str:
    environment, engine = asked.environment, asked.engine()
    bridges = packet_filter.bridges_of(engine.client, environment)
    there = bridges.six if bridges.edge else None
    hides = packet_filter.passes_no_ipv6(bridges, packet_filter.of_engine(asked.host))
    return ipv6.judge(environment, engine.info.version, there, asked.facts().values, hides=hides)


def _public_name(asked: Asked) -> str:
    runs = False
    with contextlib.suppress(UnavailableError):
        runs = bool(_own_containers(asked))
    return public_name.check(asked.environment, runs=runs)


def _engine_rules(asked: Asked) -> str:
    there, why = engine_rules.look(asked.environment, asked.host, asked.engine().client)
    if there is None:
        raise UnavailableError(why)
    if not there:
        raise FailedError(engine_rules.advised(why, asked.workspace))
    return why


def _packet_filter(asked: Asked) -> str:
    holds, why = packet_filter.look(asked.environment, asked.engine().client)
    if holds is None:
        raise UnavailableError(why)
    if not holds:
        raise FailedError(why)
    return why


def _clock(asked: Asked) -> str:
    # That no engine answers is told by the check of the engine; the host's clock may be kept right all the same.
    with contextlib.suppress(UnavailableError):
        if said := asked.engine().info.clocks_differ:
            raise FailedError(said)
    synchronised = asked.facts().values.get("synchronised")
    if synchronised == "no":
        raise FailedError(
            "it is not synchronised, and alerts, certificates and moments to restore go by it: timedatectl set-ntp true"
        )
    if synchronised != "yes":
        raise UnavailableError("no systemd there that says whether it is synchronised")
    return "synchronised"


def _kernel(asked: Asked) -> str:
    return judge_kernel(asked.environment, asked.facts())


def judge_kernel(environment: Environment, facts: Facts) -> str:
    """Say whether the settings of a kernel let the parts run; only those that keep one from it. Raises FailedError."""
    if not facts.values.get("vm/overcommit_memory"):
        raise UnavailableError("the host does not say")
    problems = []
    if facts.values["vm/overcommit_memory"] == _OVERCOMMIT_NEVER:
        problems.append(
            "vm.overcommit_memory is 2: Redis cannot fork to write its data, and Go programs do not start; "
            "sysctl -w vm.overcommit_memory=1"
        )
    if facts.values.get("net/ipv4/ip_forward") == "0":
        problems.append(
            "net.ipv4.ip_forward is 0: no container has a way out, nor is a published port reached from outside; "
            "sysctl -w net.ipv4.ip_forward=1"
        )
    if environment.settings.cadvisor.kernel_log and "kmsg" not in facts.values:
        problems.append(f"there is no /dev/kmsg: set {key_of('cadvisor', 'kernel_log')}: false")
    if problems:
        raise FailedError("; ".join(problems))
    overcommit = facts.values["vm/overcommit_memory"]
    return f"vm.overcommit_memory {overcommit} (Redis can fork), packets are forwarded, the kernel's log is there"


# Images


def _images(asked: Asked) -> Iterator[Check]:
    """Every image that `up` takes from somewhere; what an earlier run made in its place counts while it is there."""
    declared = asked.workspace.settings(on_this_machine=False)
    wanted = {name: declared.image(name) for name in third_party_images(declared)}  # type: ignore[arg-type] # known ones
    configured = declared.settings.images
    wanted |= {name: image for name in type(configured).model_fields if (image := getattr(configured, name))}
    for name in ("api", "worker", "frontend"):
        if name in declared.running() and (image := getattr(declared.settings, name).image):
            wanted[name] = image
    for name, image in wanted.items():
        made = getattr(asked.environment.settings.images, name, None)
        yield Check(name=f"image {name}", ask=partial(_image, asked, name, image, made))


def _image(asked: Asked, name: str, image: str, made: str | None) -> str:
    client = asked.engine().client
    for each in filter(None, (made, image)):
        with contextlib.suppress(docker.errors.ImageNotFound):
            client.images.get(each)
            return f"{short_name(each)} is on the engine"
    why = "it is an id, and not on the engine"
    if not image.startswith("sha256:"):
        try:
            client.images.get_registry_data(image)
        except docker.errors.APIError as error:
            why = str(error.explanation or error)
        else:
            return f"{short_name(image)} is in its registry"
    registry = registries.registry_of(image)
    if name in NAMES and registry in asked.unreachable():
        if name == grafana.PART:
            raise UnavailableError(f"{registry} cannot be reached: the stack comes up without it, or `docker load` one")
        return f"{registry} cannot be reached: `{asked.workspace.typed('up')}` builds it from package registries"
    raise FailedError(f"cannot pull {short_name(image)}: {why}")


# What is outside


def _telegram(asked: Asked) -> str:
    telegram = asked.environment.settings.alertmanager.telegram
    if telegram is None:
        raise NotConfiguredError(f"{key_of('alertmanager', 'telegram')} is not set")
    bot = f"{telegram.api_url}/bot{asked.secret('telegramBotToken')}"
    # By no proxy of this machine: AlertManager has none either.
    with httpx.Client(timeout=asked.seconds / 2, trust_env=False) as client:
        try:
            me = client.get(f"{bot}/getMe")
            # getChat also knows a group that became a supergroup, to which nobody can write; this asks for that right.
            asked_for: dict[str, str | int] = {"chat_id": telegram.chat_id, "action": "typing"}
            if telegram.message_thread_id:
                asked_for["message_thread_id"] = telegram.message_thread_id
            chat = client.get(f"{bot}/sendChatAction", params=asked_for)
        except httpx.TransportError as error:  # its text may have the address, and the token is in that
            raise UnavailableError(f"{telegram.api_url} cannot be reached from here ({type(error).__name__})") from None
    if me.status_code in (_UNAUTHORIZED, _NOT_FOUND):
        raise FailedError(f"Telegram does not know the token: set {PROJECT}:telegramBotToken as BotFather gives it")
    if me.status_code != _OK:
        raise FailedError(f"{telegram.api_url} answers {me.status_code}")
    name = me.json()["result"]["username"]
    if chat.status_code != _OK:
        why, moved = _refused(chat)
        if moved:
            line = f"pulumi config set --path {key_of('alertmanager', 'telegram', 'chat_id')} -- {moved}"
            told = f"became a supergroup, whose id is {moved}: {pasted.command(asked.environment.name, line)}"
            raise FailedError(f"the chat {telegram.chat_id} {told}")
        if "thread" in why:
            key = key_of("alertmanager", "telegram", "message_thread_id")
            raise FailedError(f"the chat {telegram.chat_id} has no topic {telegram.message_thread_id} ({why}): {key}")
        told = f"@{name} may not write to the chat {telegram.chat_id} ({why})"
        raise FailedError(f"{told}: add it there, or say /start to it")
    where = f", topic {telegram.message_thread_id}" if telegram.message_thread_id else ""
    return f"@{name} is let in, and may write to the chat {telegram.chat_id}{where}"


def _refused(answer: httpx.Response) -> tuple[str, int]:
    """Return what Telegram says of a refusal, and the id that a group has since it became a supergroup; else 0."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        said = answer.json()
        return str(said["description"])[:200], int(said.get("parameters", {}).get("migrate_to_chat_id", 0))
    return f"it answers {answer.status_code}", 0


def _email(asked: Asked) -> str:
    email = asked.environment.settings.alertmanager.email
    if email is None:
        raise NotConfiguredError(f"{key_of('alertmanager', 'email')} is not set")
    host, _, port = email.smarthost.partition(":")
    tls = int(port) == _SMTPS
    try:
        with (smtplib.SMTP_SSL if tls else smtplib.SMTP)(host, int(port), timeout=asked.seconds / 2) as server:
            server.ehlo()
            if email.require_tls and not tls:
                server.starttls(context=ssl.create_default_context())
                server.ehlo()
            if email.username:
                server.login(email.username, asked.secret("smtpPassword"))
    except smtplib.SMTPAuthenticationError as error:
        raise FailedError(f"{email.smarthost} refuses the login of {email.username} ({error.smtp_code})") from None
    except smtplib.SMTPNotSupportedError as error:
        raise FailedError(f"{email.smarthost}: {error}") from None
    except (OSError, smtplib.SMTPException) as error:
        text = f"{email.smarthost} cannot be spoken to from here: {error}"
        raise (UnavailableError if asked.elsewhere else FailedError)(text) from None
    return f"{email.smarthost} answers" + (f" and lets {email.username} in" if email.username else "")


def _grafana_password(asked: Asked) -> str:
    settings = asked.environment.settings.grafana
    if "grafana" in asked.environment.absent:
        raise UnavailableError(f"there is no Grafana on this host ({key_of('unavailable')})")
    rows = {row.part: row for row in lifecycle.status(asked.workspace)} if _has_engine(asked) else {}
    if (row := rows.get(grafana.PART)) is None or not row.ok:
        up = asked.workspace.typed("up")
        if settings.adopt_volume:
            raise UnavailableError(f"an adopted volume keeps the password that it has: ask again after `{up}`")
        return f"generated at the first `{up}`, {GENERATED['grafana_admin'].length} characters"
    generated = ""
    with contextlib.suppress(ProjectError):  # a state that cannot be read is told by others
        generated = asked.workspace.open().secrets().get(label("grafana_admin"), "")
    shown = asked.workspace.typed("password NAME=grafana-admin")
    with reach.opened(asked.environment) as url, httpx.Client(timeout=asked.seconds / 2, trust_env=False) as client:
        # Grafana locks admin out for five minutes after five logins that fail. A volume of ours began with the
        # generated one: the default is tried only where that one is not known, or the volume is somebody else's.
        default = ("admin",) if settings.adopt_volume or not generated else ()
        for password in filter(None, (generated, *default)):
            answer = client.get(f"{url(settings)}/api/user", auth=("admin", password))
            if answer.status_code not in (_OK, _UNAUTHORIZED):
                raise FailedError(f"Grafana does not say whether it lets admin in: it answers {answer.status_code}")
            if answer.status_code == _OK:
                break
        else:
            # During the lock-out the right one is refused as well, and so is the default where it is valid.
            tried = [*([f"what `{shown}` shows"] if generated else []), *default]
            text = f"admin is refused with {' and with '.join(tried)}"
            raise UnavailableError(f"{text}: its password was changed by hand, or it is locked for five minutes")
    if password != generated:
        raise FailedError(
            "it lets admin in with the password admin; in its container: grafana cli admin reset-admin-password "
            f"--password-from-stdin, with what `{shown}` shows"
        )
    return "the generated one is in use"


def _has_engine(asked: Asked) -> bool:
    with contextlib.suppress(UnavailableError):
        return bool(asked.engine())
    return False


def _destination(asked: Asked) -> str:
    """Write one small object beside the copies, always the same: a key that may not delete is the better one."""
    offsite = asked.environment.offsite
    if offsite is None:
        raise NotConfiguredError(f"{key_of('backup', 'offsite')} is not set: the backups stay on that machine")
    prefix = offsite.prefix or f"{PROJECT}-{asked.environment.name}"
    url = f"{offsite.endpoint.rstrip('/')}/{offsite.bucket}/{prefix}/doctor"
    keys = f"{asked.secret('s3AccessKeyId')}:{asked.secret('s3SecretAccessKey')}"
    body = "written by samokoder doctor"
    options = {
        "url": url,
        "user": keys,
        "aws-sigv4": f"aws:amz:{offsite.region}:s3",
        "request": "PUT",
        "data-binary": body,
        "header": f"x-amz-content-sha256: {hashlib.sha256(body.encode()).hexdigest()}",
        "write-out": "\n%{http_code}",
        "max-time": f"{asked.seconds / 2:g}",
    }
    # By standard input: on a command line everybody on the host could read the keys.
    config = "silent\nshow-error\n" + "".join(f"{name} = {_quoted(text)}\n" for name, text in options.items())
    done = asked.run("curl", "--config", "-", given=config)
    if done.returncode:
        raise FailedError(f"{offsite.endpoint} cannot be spoken to from the engine's host: {_last(done.stderr)}")
    answer, _, status = done.stdout.rpartition("\n")
    if int(status) == _FORBIDDEN:
        raise FailedError(f"{offsite.endpoint} refuses the keys, or their right to write to {offsite.bucket}/{prefix}")
    if int(status) == _NOT_FOUND:
        raise FailedError(f"{offsite.endpoint} has no bucket {offsite.bucket}")
    if int(status) != _OK:
        raise FailedError(f"{offsite.endpoint} answers {status}: {' '.join(answer.split())[:200]}")
    return f"{url} was written"


def _quoted(text: str) -> str:
    """Return a value as curl's configuration file has it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


# After `up`


def after(workspace: Workspace, *, seconds: float = 10, timeout: float = 60) -> Report:
    """Check what was brought up: the smoke test, a test alert by every way, what has restarted, what Redis has read.

    timeout: seconds that the test alert may take. Raises ProjectError as `smoke.smoke` does.
    """
    smoked = smoke.smoke(workspace, seconds=seconds, wait=timeout)
    counted = next((each.why for each in smoked.findings if each.check == "metrics redis"), "nothing is known")
    rest = [
        Check(name="restarts", ask=lambda: _restarts(workspace)),
        Check(name="redis' file", ask=lambda: redis_log.read(workspace, counted=counted)),
        Check(name="collations", ask=lambda: collations.read(workspace)),
        Check(name="closed addresses", ask=lambda: _closed(workspace)),
        Check(name="large packets", ask=lambda: mtu.try_large(workspace)),
    ]
    found = [*smoked.findings, *_delivered(workspace, timeout), *checks.run(rest, seconds=seconds)]
    return Report(title=f"After `{workspace.typed('up')}` of {workspace.name}", about=smoked.about, findings=found)


def _delivered(workspace: Workspace, timeout: float) -> Iterator[Finding]:
    ways = integrations(workspace.settings())
    if not ways:
        yield Finding(check="test alert", verdict=Verdict.NOT_CONFIGURED, why=f"goes to nobody: {REACH_SOMEBODY}")
        return
    try:
        report = alerting.send_test_alert(workspace, timeout=timeout)
    except ProjectError as error:
        yield Finding(check="test alert", verdict=Verdict.FAILED, why=str(error))
        return
    for each in report.integrations:
        good = each.state is alerting.State.DELIVERED
        verdict = Verdict.PASSED if good else Verdict.FAILED
        yield Finding(check=f"test alert by {each.integration}", verdict=verdict, why=each.text)


def _restarts(workspace: Workspace) -> str:
    restarted = [f"{row.part} {row.restarts} times" for row in lifecycle.status(workspace) if row.restarts]
    if restarted:
        raise FailedError(f"containers ended and were started again: {', '.join(restarted)}")
    return "no container has ended since it was made"


def _closed(workspace: Workspace) -> str:
    environment = workspace.settings()
    if not environment.settings.packet_filter.closed:
        raise NotConfiguredError(f"{key_of('packet_filter', 'closed')} is empty: everything is open, as it says")
    if "backup" in environment.absent:
        raise UnavailableError("it is tried in the backup server's image, which is not here")
    with contextlib.closing(workspace.client()) as client:
        if found := from_edge.reached(environment, client):
            _, why = packet_filter.look(environment, client)
            raise FailedError(f"a container on `edge` reaches {', '.join(found)}. {why}")
    return "a container on `edge` finds nobody there"


def first_day(environment: Environment) -> list[str]:
    """Return what a person looks at in the first 24 hours after an `up`."""
    settings = environment.settings
    backup = settings.backup
    name = environment.name
    smoke_test = f"{typed(name, 'smoke')}, and {settings.prometheus.address}/alerts, where Watchdog alone fires"
    restarts = (
        f"{typed(name, 'status')}: no restart; {settings.grafana.address}/d/samokoder-containers: no memory that grows"
    )
    signals = f"{settings.grafana.address}/d/samokoder-golden-signals: errors and latency as before"
    watch = [f"after 10 minutes: {smoke_test}", f"after an hour: {restarts}", f"after a few hours: {signals}"]
    if backup.enabled:
        schedules = f"of {backup.base_schedule} and the dump of {backup.dump_schedule} (UTC)"
        watch.append(f"next morning: {typed(name, 'backups')}: the base backup {schedules} are there and good")
    return [*watch, "next morning: the disk has not lost more than you expected (HostDiskFillsSoon would say so)"]
