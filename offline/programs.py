"""The programs that are built from the Go module proxy: version, executables and what is left out of each.

Every program is a folder of `offline/go` with a committed go.mod and go.sum.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from offline.errors import OfflineError

SOURCES = Path(__file__).parent / "go"

ADDED = Path(__file__).parent / "added"
"""What takes the place of what more than one program leaves out."""

# renovate: datasource=github-releases depName=pulumi/pulumi
_PULUMI_VERSION = "3.259.0"

_PROMETHEUS_VERSION = "github.com/prometheus/common/version"


@dataclass(frozen=True, kw_only=True)
class Program:
    """How one folder of `offline/go` becomes executables.

    `version` is the released version that is built, without a "v"; `executables` maps a file name to the Go package
    it is built from; `stamps` are string variables set at link time, {version} in them being the version;
    `generate` is a `go run` before the build (its words may hold {source}, the folder of the sources); `files` are
    further files from a module: name -> (module, path); `tags` are Go build tags; `without` are modules, each with
    the folders and files in it that are left out: what lies in `added/<module>`, the program's or that of all,
    takes their place; `pages` is one of these modules, whose web pages are built (`offline/prometheus_pages.py`)
    and put into the program; `own_page` is one of them too, and its folder that gets our page in `page/`
    (`offline/alertmanager_page.py`); `after` is the program whose compiled packages this one shares: built at the
    same time, both would compile them; `seconds` is the processor time of its build once those are compiled, for
    what is said before and meanwhile (measured on 2026-12-01 on two cores).
    What is not in repr is no part of what is built.
    """

    version: str
    executables: Mapping[str, str]
    seconds: int = field(default=10, repr=False)
    stamps: Mapping[str, str] = field(default_factory=dict)
    generate: tuple[str, ...] = ()
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    without: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    own_page: tuple[str, str] | None = None
    pages: str = ""
    after: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Put the version into the stamps, so that it is written in one place."""
        stamped = {variable: value.format(version=self.version) for variable, value in self.stamps.items()}
        object.__setattr__(self, "stamps", stamped)


#: What `--version` and the `*_build_info` metric of every Prometheus program read.
_PROMETHEUS_STAMPS = {
    f"{_PROMETHEUS_VERSION}.{name}": value
    for name, value in (("Version", "{version}"), ("Branch", "module-proxy"), ("BuildUser", "samokoder-offline"))
}


#: Amazon's client libraries, for a signature on requests to its cloud.
_WITHOUT_SIGNATURES = {"github.com/prometheus/sigv4": ("sigv4.go",)}

# A bridge's schema is made without examples; what would fetch and translate them is a third of the bridge's build.
_WITHOUT_EXAMPLES = {
    "github.com/hashicorp/go-getter": ("get_gcs.go",),
    "github.com/pulumi/pulumi-yaml": ("pkg/pulumiyaml",),
}

_SCHEMA = ("./schema", "schema", "--skip-docs", "--skip-examples", "--out", "{source}")

#: Folder of `offline/go` -> how it is built, in the order in which they start: the long ones first.
PROGRAMS: Mapping[str, Program] = {
    "pulumi": Program(
        version=_PULUMI_VERSION,
        seconds=318,
        executables={"pulumi": "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"},
        stamps={"github.com/pulumi/pulumi/sdk/v3/go/common/version.Version": "v{version}"},
        # `pulumi api` and Google's cloud are two fifths of the build; of the rest, Amazon's logs and the colours of
        # code in some hundred languages are a twelfth.
        without={
            "github.com/pulumi/pulumi/pkg/v3": (
                "authhelpers/gcpauth.go",
                "operations/operations_aws.go",
                "operations/operations_cloud_aws.go",
                "operations/operations_gcp.go",
                *(
                    f"cmd/pulumi/cloud/{name}.go"
                    for name in (
                        *("api", "describe", "describe_markdown", "encoding", "envelope", "fields", "format", "list"),
                        *("output", "paginate", "pathmatch", "schema", "spec", "spec_fetch"),
                    )
                ),
            ),
            "gocloud.dev": ("blob/gcsblob", "secrets/gcpkms"),
            "github.com/alecthomas/chroma": (
                "lexers/circular",
                *(f"lexers/{letter}" for letter in "abcdefghijklmnopqrstvwxyz"),
            ),
        },
    ),
    "prometheus": Program(
        # renovate: datasource=github-releases depName=prometheus/prometheus
        version="3.13.4",
        seconds=234,
        executables={
            "prometheus": "github.com/prometheus/prometheus/cmd/prometheus",
            "promtool": "github.com/prometheus/prometheus/cmd/promtool",
        },
        stamps=_PROMETHEUS_STAMPS,
        # The clouds' service discoveries are two thirds of the build; file, static and http need no tag.
        tags=("remove_all_sd", "enable_dns_sd", "enable_moby_sd"),
        # promtool has one of them whatever the tags: that of Kubernetes, half of what is left.
        # The description of the API, which nobody here reads, is a quarter of the server. Another quarter is what signs
        # remote writes for three clouds, and a client of Kubernetes that is asked for nothing but its warnings.
        without={
            **_WITHOUT_SIGNATURES,
            "k8s.io/client-go": ("rest",),
            "github.com/prometheus/prometheus": (
                "discovery/kubernetes",
                "storage/remote/azuread",
                "storage/remote/googleiam",
                *(f"web/api/v1/openapi{part}.go" for part in ("", "_examples", "_helpers", "_paths", "_schemas")),
            ),
        },
        pages="github.com/prometheus/prometheus",
    ),
    "alertmanager": Program(
        # renovate: datasource=github-releases depName=prometheus/alertmanager
        version="0.34.1",
        seconds=52,
        executables={
            "alertmanager": "github.com/prometheus/alertmanager/cmd/alertmanager",
            "amtool": "github.com/prometheus/alertmanager/cmd/amtool",
        },
        stamps=_PROMETHEUS_STAMPS,
        # Upstream's page is made of Elm packages, which no package registry has. What writes events to Kafka and
        # messages to Amazon's SNS is half of the build; no setting leads there.
        without={
            **_WITHOUT_SIGNATURES,
            "github.com/prometheus/alertmanager": ("eventrecorder/kafka.go", "notify/sns"),
        },
        own_page=("github.com/prometheus/alertmanager", "ui/app/dist"),
    ),
    "caddy": Program(
        # renovate: datasource=github-releases depName=caddyserver/caddy
        version="2.11.4",
        seconds=115,
        executables={"caddy": "github.com/caddyserver/caddy/v2/cmd/caddy"},
        stamps={"github.com/caddyserver/caddy/v2.CustomVersion": "v{version}"},
        # The tags are those of upstream's releases: no setting leads to the databases that they leave out.
        tags=("nobadger", "nomysql", "nopgx"),
        without={"github.com/smallstep/certificates": ("authority/provisioner/gcp",)},
    ),
    # The newest module version that still holds the Python language host.
    "pulumi-language-python": Program(
        version="3.75.0",
        seconds=54,
        executables={"pulumi-language-python": "github.com/pulumi/pulumi/sdk/v3/python/cmd/pulumi-language-python"},
        stamps={"github.com/pulumi/pulumi/sdk/v3/go/common/version.Version": "v{version}"},
        files={
            "pulumi-language-python-exec": (
                "github.com/pulumi/pulumi/sdk/v3",
                "python/cmd/pulumi-language-python-exec",
            )
        },
    ),
    # Both bridges have their dependencies at the versions of the Pulumi command, or newer, so that half of the first
    # and nearly all of the second lie compiled in Go's cache.
    "pulumi-resource-docker": Program(
        # renovate: datasource=pypi depName=pulumi-docker
        version="5.2.0",
        seconds=200,
        executables={"pulumi-resource-docker": "."},
        generate=_SCHEMA,
        # Images are built on the engine alone; building them in Kubernetes is half of what this one adds to the build.
        without={
            **_WITHOUT_EXAMPLES,
            "github.com/docker/buildx": tuple(
                f"driver/kubernetes/{name}"
                for name in ("context", "driver.go", "execconn", "factory.go", "manifest", "podchooser")
            ),
        },
        after="pulumi",
    ),
    "pulumi-resource-random": Program(
        # renovate: datasource=pypi depName=pulumi-random
        version="4.21.4",
        seconds=22,
        executables={"pulumi-resource-random": "."},
        generate=_SCHEMA,
        without=_WITHOUT_EXAMPLES,
        after="pulumi-resource-docker",
    ),
    "cadvisor": Program(
        # renovate: datasource=github-releases depName=google/cadvisor
        version="0.60.6",
        seconds=32,
        executables={"cadvisor": "."},
        stamps={"github.com/google/cadvisor/lib/version.Version": "v{version}"},
    ),
    # Of v1.52.0 there is no module: the tags after it are the same release.
    "victoria_logs": Program(
        # renovate: datasource=go depName=github.com/VictoriaMetrics/VictoriaLogs
        version="1.52.2",
        seconds=32,
        executables={"victoria-logs-prod": "github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs"},
        stamps={"github.com/VictoriaMetrics/VictoriaMetrics/lib/buildinfo.Version": "victoria-logs-v{version}"},
    ),
    "node_exporter": Program(
        # renovate: datasource=github-releases depName=prometheus/node_exporter
        version="1.12.1",
        seconds=19,
        executables={"node_exporter": "github.com/prometheus/node_exporter"},
        stamps=_PROMETHEUS_STAMPS,
    ),
    "blackbox_exporter": Program(
        # renovate: datasource=github-releases depName=prometheus/blackbox_exporter
        version="0.28.0",
        seconds=59,
        executables={"blackbox_exporter": "github.com/prometheus/blackbox_exporter"},
        stamps=_PROMETHEUS_STAMPS,
    ),
    "postgres_exporter": Program(
        # renovate: datasource=github-releases depName=prometheus-community/postgres_exporter
        version="0.19.1",
        seconds=21,
        executables={"postgres_exporter": "github.com/prometheus-community/postgres_exporter/cmd/postgres_exporter"},
        stamps=_PROMETHEUS_STAMPS,
    ),
    "redis_exporter": Program(
        # renovate: datasource=github-releases depName=oliver006/redis_exporter
        version="1.88.0",
        seconds=15,
        executables={"redis_exporter": "github.com/oliver006/redis_exporter"},
        stamps={"main.BuildVersion": "v{version}"},
    ),
    # Tells which Python the language host of the pinned Pulumi takes, for a test.
    "pulumi-toolchain": Program(
        version=_PULUMI_VERSION,
        executables={"pulumi-toolchain": "."},
        after="pulumi",
    ),
    # A container registry on loopback, for the tests of pulling by digest.
    "registry": Program(
        # renovate: datasource=github-releases depName=distribution/distribution
        version="3.1.1",
        executables={"registry": "github.com/distribution/distribution/v3/cmd/registry"},
        stamps={"github.com/distribution/distribution/v3/version.version": "v{version}"},
    ),
    # An S3 server on loopback, for the tests of the off-site copies.
    "versitygw": Program(
        # renovate: datasource=github-releases depName=versity/versitygw
        version="1.8.0",
        executables={"versitygw": "github.com/versity/versitygw/cmd/versitygw"},
        stamps={"main.Version": "v{version}"},
    ),
    # The newest engine, for the tests: no Debian has it yet. What it says of itself
    # is our text: the tests ask for the version of its API.
    "engine": Program(
        # renovate: datasource=go depName=github.com/moby/moby/v2
        version="2.0.0-beta.24",
        seconds=480,
        executables={
            "dockerd": "github.com/moby/moby/v2/cmd/dockerd",
            "docker-proxy": "github.com/moby/moby/v2/cmd/docker-proxy",
        },
        stamps={"github.com/moby/moby/v2/dockerversion.Version": "29.0.0-v{version}"},
    ),
    # Reads the labels of the application's containers, for the tests of an ingress of the team's own. Most of its build
    # is lego's DNS providers, which no router, service or middleware needs.
    "traefik": Program(
        # renovate: datasource=github-releases depName=traefik/traefik
        version="3.7.13",
        executables={"traefik": "github.com/traefik/traefik/v3/cmd/traefik"},
        stamps={"github.com/traefik/traefik/v3/pkg/version.Version": "{version}"},
        without={"github.com/go-acme/lego/v5": ("providers/dns",)},
    ),
    # Reads the workflows, for `make lint`.
    "actionlint": Program(
        # renovate: datasource=github-releases depName=rhysd/actionlint
        version="1.7.12",
        executables={"actionlint": "github.com/rhysd/actionlint/cmd/actionlint"},
        stamps={"github.com/rhysd/actionlint.version": "{version}"},
    ),
}


def required_go(go_mod: Path) -> str:
    """Return the Go version that a go.mod asks for, such as "1.26.0"."""
    found = re.search(r"^go (\S+)$", go_mod.read_text(), re.MULTILINE)
    if found is None:
        msg = f"{go_mod.parent.name}/go.mod has no `go` line"
        raise OfflineError(msg)
    return found[1]
