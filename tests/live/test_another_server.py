"""An environment moves to another server, by the lines of docs/faq.md, with its state in a bucket. It needs root."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import docker
import httpx
import pytest

from bench.own_ports import own_ports
from operations.clone import ROOT
from operations.engine import containers, reach
from operations.workspace.workspace import Workspace
from stack.settings.environment import Environment
from tests.backup_image.s3_server import BUCKET, REGION, S3Server, built
from tests.live import clones
from tests.live.conftest import no_limits
from tests.live.other_host import Host, far_engine, load_images, other_host

ENVIRONMENT = "moves"
QUESTION = "### How do I move to another server?"


@dataclass(frozen=True)
class Moving:
    """A clone whose environment is up on the engine here, and the server to which it goes."""

    folder: Path
    host: Host
    variables: Mapping[str, str]
    """Where the state is, and the keys of that bucket."""

    @property
    def workspace(self) -> Workspace:
        return Workspace(environment=ENVIRONMENT, root=self.folder, isolated=True)

    def typed(self, line: str, *, status: int = 0) -> str:
        return clones.typed(self.folder, line, status=status, **{"ENV": ENVIRONMENT, **self.variables})

    def page(self) -> list[str]:
        """Return the lines that the page has for a state that goes along, for this environment and this server."""
        text = (ROOT / "docs" / "faq.md").read_text().partition(QUESTION)[2].partition("\n### ")[0]
        leaves, comes, _ = re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        lines = f"{leaves}{comes}".replace("samokoder-prod-", f"samokoder-{ENVIRONMENT}-")
        lines = lines.replace("ENV=prod", f"ENV={ENVIRONMENT}").replace("-e prod", f"-e {ENVIRONMENT}")
        return lines.replace("ssh://deploy@new.example.org", self.host.docker_host).splitlines()


@pytest.fixture(scope="module")
def moving(
    engine: docker.DockerClient, local_images: Environment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Moving]:
    """The environment on the old server, with a bucket that both servers reach for its state and its copies."""
    folder = tmp_path_factory.mktemp("moves") / "clone"
    with other_host(tmp_path_factory.mktemp("new server")) as host:
        load_images(host, engine, local_images)
        server = S3Server(built(), tmp_path_factory.mktemp("bucket"), listens="").start()
        try:
            server.make_bucket()
            server.allow(all=("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"))
            offsite = {"endpoint": f"http://{host.gateway}:{server.port}", "bucket": BUCKET, "region": REGION}
            api = {"replicas": 1, "stableSeconds": 2, "environment": no_limits()}
            clones.make(
                folder,
                ENVIRONMENT,
                {**own_ports(), "samokoder:api": api, "samokoder:backup": {"offsite": offsite}},
            )
            where = f"endpoint={host.gateway}:{server.port}&region={REGION}&s3ForcePathStyle=true&disableSSL=true"
            keys = {
                "PULUMI_BACKEND_URL": f"s3://{BUCKET}?{where}",
                "AWS_ACCESS_KEY_ID": server.access_key,
                "AWS_SECRET_ACCESS_KEY": server.secret_key,
                "AWS_REGION": REGION,
            }
            made = Moving(folder, host, keys)
            for name, value in (("s3AccessKeyId", server.access_key), ("s3SecretAccessKey", server.secret_key)):
                line = f"make pulumi ARGS='config set --secret samokoder:{name}'"
                done = clones.run(folder, *shlex.split(line), given=value, ENV=ENVIRONMENT, **keys)
                assert done.returncode == 0, done.stdout
            made.typed("make up")
            yield made
        finally:
            clones.remove(engine, ENVIRONMENT)
            server.stop()


def test_all_that_was_written_is_on_the_new_server_with_the_passwords_of_the_old_one(
    moving: Moving, engine: docker.DockerClient
) -> None:
    environment = moving.workspace.settings()
    page = reach.url(environment.settings.ingress)
    httpx.post(f"{page}/projects", json={"name": "goes along"}, timeout=30).raise_for_status()
    before = moving.typed(".venv/bin/samokoder password postgres-app").splitlines()[-1]
    stop, backup, sent, down, named, refused, empty, restore = moving.page()
    for line in (stop, backup, sent, down, named):
        moving.typed(line)
    assert not containers.of_environment(engine, ENVIRONMENT), "users of the old server would write what is lost"
    said = moving.typed(refused, status=2)
    assert "so nothing was started" in said
    assert f"then make restore FROM=offsite ENV={ENVIRONMENT}" in said, "what to type is said, and not only on the page"
    (found,) = set(re.findall(rf"make up EMPTY=(?:'[a-z ]+'|[a-z]+) ENV={ENVIRONMENT}", said))
    assert empty == f"make up EMPTY=… ENV={ENVIRONMENT}", "the page leaves to the command which volumes those are"
    for line in (found, restore):
        moving.typed(line)
    assert moving.typed(".venv/bin/samokoder password postgres-app").splitlines()[-1] == before
    moving.typed("make smoke ARGS='--wait 120'")
    environment = moving.workspace.settings()
    with reach.opened(environment) as url, httpx.Client(base_url=url(environment.settings.ingress), timeout=30) as new:
        assert "goes along" in [project["name"] for project in new.get("/projects").json()]
    with far_engine(moving.host) as far:
        assert containers.of_environment(far, ENVIRONMENT)
    assert not containers.of_environment(engine, ENVIRONMENT), "nothing of it comes up on the old server again"
    assert "unchanged" in moving.typed("make preview"), "and the state says what there is"
