"""The hardening gate over what really runs, and the policy pack in a real preview."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import docker
import pytest
from docker.types import Mount

from host.progress import Reporter
from operations.audit.exceptions import exceptions
from operations.audit.gate import gate, inspect, judge
from operations.clone import ROOT
from operations.engine import laboratory
from operations.errors import ProjectError
from operations.lifecycle.prepare import prepare
from operations.workspace import known
from operations.workspace.workspace import Workspace
from stack.catalogue import specs
from stack.common.names import PART_LABEL
from stack.settings.environment import Environment
from tests.live.conftest import with_config
from tests.live.test_the_stack import until

PACK = ("--policy-pack", str(ROOT / "policy"), "--non-interactive", "--suppress-outputs")


def test_nothing_that_runs_breaks_a_rule_that_is_not_listed(stack: Workspace) -> None:
    verdict = gate(known.of(stack))
    assert verdict.parts == len(specs(stack.settings())), "a part that is not looked at may be anything"
    assert not verdict.findings, verdict.findings
    assert verdict.listed, "the exceptions are real: cAdvisor has the engine's socket"


@pytest.mark.parametrize(
    ("worse", "rules"),
    [
        # In these three the engine switches SELinux off by itself.
        ({"privileged": True}, {"5.3", "5.5"}),
        ({"pid_mode": "host"}, {"5.3", "5.16"}),
        ({"ipc_mode": "host"}, {"5.3", "5.17"}),
        ({"cap_add": ["NET_ADMIN"]}, {"5.4"}),
        ({"cap_drop": None}, {"5.4"}),
        ({"security_opt": []}, {"5.26"}),
        ({"security_opt": ["no-new-privileges=true", "seccomp=unconfined"]}, {"5.22"}),
        ({"read_only": False}, {"5.13"}),
        ({"tmpfs": {"/tmp": ""}}, {"5.13"}),  # noqa: S108 - a folder of the container
        ({"uts_mode": "host", "hostname": None}, {"5.21"}),
        ({"user": "0:0"}, {"4.1"}),
        ({"mem_limit": 0, "memswap_limit": 0}, {"5.11"}),
        ({"nano_cpus": 0}, {"5.12"}),
        ({"ulimits": []}, {"5.19"}),
        ({"mounts": [Mount("/h", "/etc", type="bind", read_only=True)]}, {"5.6"}),
        ({"mounts": [Mount("/d.sock", "/var/run/docker.sock", type="bind")]}, {"5.6", "5.32"}),
        ({"devices": ["/dev/null:/dev/it:r"]}, {"5.18"}),
        ({"environment": {"SMTP_PASSWORD": "hunter2"}}, {"4.10"}),
        ({"cgroup_parent": "/elsewhere"}, {"5.25"}),
        ({"healthcheck": {"test": ["NONE"]}}, {"4.6", "5.27"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_container_made_worse_is_found(
    engine: docker.DockerClient, local_images: Environment, worse: dict[str, Any], rules: set[str]
) -> None:
    spec = next(each for each in specs(local_images) if each.part == "redis-exporter")
    with laboratory.opened(engine) as made:
        options = laboratory.container_options(spec) | {
            "entrypoint": ["sleep"],
            "command": ["60"],
            "healthcheck": {"test": ["CMD", "true"]},
            "restart_policy": {"Name": "unless-stopped"},
            "labels": {**made.labels, PART_LABEL: spec.part},
            "network": made.network.name,
        }
        container = engine.containers.run(spec.image, detach=True, **(options | worse))
        container.reload()
        seen = inspect(engine, [container], Reporter())
        findings = judge(seen, exceptions(), datetime.now(UTC).date()).findings
    assert {each.rule for each in findings} == rules, findings


def test_who_is_in_a_container_as_root_is_found(engine: docker.DockerClient, stack: Workspace) -> None:
    container = engine.containers.get(f"{stack.settings().prefix}-redis")
    session = engine.api.exec_create(container.id, ["cat"], user="0", stdin=True)["Id"]
    stream = engine.api.exec_start(session, socket=True)
    try:
        found = {each.rule for each in gate(known.of(stack)).findings if each.part == "redis"}
    finally:  # its input ends, and so does it
        getattr(stream, "_sock", stream).close()
        stream.close()
    assert found == {"5.24"}, "who is root in it reads its secrets"
    ended = until(lambda: not engine.api.exec_inspect(session)["Running"], bool)
    assert ended, "the next test would find it too"


def test_an_environment_that_is_not_up_is_an_error_and_no_pass(new_workspace: Callable[[], Workspace]) -> None:
    with pytest.raises(ProjectError, match="is not up"):
        gate(known.of(new_workspace()))


def test_a_preview_with_the_policy_pack_passes_and_fails_by_the_same_rules(
    new_workspace: Callable[[], Workspace],
) -> None:
    workspace = new_workspace()
    prepare(workspace, images=False)
    good = workspace.open().pulumi("preview", *PACK, capture=True, check=False)
    assert good.returncode == 0, (good.stdout + good.stderr)[-3000:]
    assert "samokoder-hardening" in good.stdout, "the pack was not asked"
    worse = with_config(workspace, {"samokoder:api": {"environment": {"SMTP_PASSWORD": "hunter2"}}})
    bad = worse.open().pulumi("preview", *PACK, capture=True, check=False)
    assert bad.returncode != 0, "a mandatory rule must stop it"
    assert "cis-4.10" in bad.stdout
    assert "api-1 has what looks like a secret in the variable SMTP_PASSWORD" in bad.stdout
    assert "hunter2" not in bad.stdout.partition("Policies:")[2], json.dumps("a finding shows no value")
