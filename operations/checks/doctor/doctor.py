"""`samokoder doctor`: whether an environment can be brought up, and with `--after`, whether `up` succeeded.

Before `up` it checks settings, secrets, the engine and its host, images, and the services outside: Telegram, the mail
server, the bucket. It starts nothing, and changes nothing but one object in the bucket. After `up` it runs the smoke
test and a test alert, and says what to look at in the first day. A small shell script, run here or through ssh, reads
the facts of the host and writes nothing. A running container resolves a name with a program of its image.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

from operations.checks.doctor.asked import EnvironmentAsked
from operations.checks.doctor.at_boot import judge_addresses, judge_start
from operations.checks.doctor.bucket import ask_bucket
from operations.checks.doctor.host import (
    judge_clock,
    judge_disk,
    judge_engine,
    judge_kernel_of_host,
    judge_memory,
    judge_ports,
)
from operations.checks.doctor.images import image_checks
from operations.checks.doctor.network import (
    judge_engine_rules,
    judge_ipv6,
    judge_mtu,
    judge_packet_filter,
    judge_public_name,
)
from operations.checks.doctor.outside import ask_mail_server, ask_telegram
from operations.checks.doctor.ranges import judge_ranges
from operations.checks.doctor.resolver import judge_resolver
from operations.checks.doctor.secrets import judge_grafana_password, judge_secrets
from operations.checks.doctor.set_aside import judge_set_aside
from operations.checks.report import (
    Check,
    Finding,
    Report,
    Verdict,
    ask_all,
)
from operations.workspace import pasted
from operations.workspace.workspace import Workspace
from stack.common.mistakes import InvalidSettingsError


def doctor(workspace: Workspace, *, seconds: float = 20) -> Report:
    """Check an environment before `up`, and change nothing but one object in the bucket.

    seconds: how long each check may take.
    """
    title = f"Before `{workspace.typed('up')}` of {workspace.name}"
    about = {"environment": workspace.name}
    try:
        environment = workspace.settings()
    except InvalidSettingsError as error:
        wrong = Finding(check="settings", verdict=Verdict.FAILED, why=pasted.mistakes_to_fix(error))
        rest = Finding(check="everything else", verdict=Verdict.NOT_AVAILABLE, why="it follows from the settings")
        return Report(title=title, about=about, findings=[wrong, rest])
    with contextlib.ExitStack() as open_:
        asked = EnvironmentAsked(workspace, environment, workspace.docker_host(), seconds, open_)
        with workspace.reporter.task(title) as task:
            return Report(title=title, about=about, findings=ask_all(list(every(asked)), seconds=seconds, task=task))


def every(asked: EnvironmentAsked) -> Iterator[Check]:
    """Yield every check, in the order of the report."""
    questions: dict[str, Callable[[EnvironmentAsked], str]] = {
        "settings": lambda asked: f"valid, {len(asked.parts())} parts",
        "secrets": judge_secrets,
        "engine": judge_engine,
        "memory and cores": judge_memory,
        "disk": judge_disk,
        "engine at boot": judge_start,
        "ports": judge_ports,
        "bind addresses": judge_addresses,
        "address ranges": judge_ranges,
        "largest packet": judge_mtu,
        "IPv6": judge_ipv6,
        "docker's rules": judge_engine_rules,
        "packet filter": judge_packet_filter,
        "clock": judge_clock,
        "kernel": judge_kernel_of_host,
    }
    outside: dict[str, Callable[[EnvironmentAsked], str]] = {
        "resolver of containers": judge_resolver,
        "damaged data": judge_set_aside,
        "public name": judge_public_name,
        "telegram": ask_telegram,
        "e-mail": ask_mail_server,
        "grafana password": judge_grafana_password,
        "backup destination": ask_bucket,
    }
    for name, ask in questions.items():
        yield Check(name=name, ask=partial(ask, asked))
    yield from image_checks(asked)
    for name, ask in outside.items():
        yield Check(name=name, ask=partial(ask, asked))
