"""The ingress as plain values: what is published, and the labels for a Traefik of the team's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from stack.common.mistakes import InvalidSettingsError
from stack.common.names import NetworkName
from stack.outputs import warnings
from stack.parts.ingress import spec as ingress
from stack.parts.ingress.caddyfile import caddyfile
from stack.parts.ingress.ports import HTTP_PORT, HTTPS_PORT, INTERNAL_PORT
from stack.settings.environment import Environment
from stack.settings.ingress import IngressSettings
from stack.spec.service import ServiceSpec
from tests.described import specs
from tests.recording import environment_of, merged

DOMAIN = "samokoder.example.org"
WHERE = {"network": "proxy", "address": "172.30.0.2"}
TRAEFIK: Mapping[str, Any] = {"ingress": {"kind": "traefik", "domain": DOMAIN, "traefik": WHERE}}
ROUTER = "traefik.http.routers.samokoder-staging-api"


def environment(values: Mapping[str, Any]) -> Environment:
    return environment_of("staging", values)


def by_part(values: Mapping[str, Any]) -> dict[str, ServiceSpec]:
    return {spec.part: spec for spec in specs(environment(values))}


def test_without_a_domain_one_port_is_published_on_loopback() -> None:
    spec = by_part({})["ingress"]
    assert spec.publish
    assert (spec.publish.host_port, spec.publish.address, spec.also_publish) == (8000, "127.0.0.1", ())


def test_with_a_domain_the_two_ports_of_the_web_are_published_on_every_address() -> None:
    spec = by_part({"ingress": {"domain": DOMAIN}})["ingress"]
    published = [
        (each.host_port, each.container_port, each.address) for each in (spec.publish, *spec.also_publish) if each
    ]
    assert published == [
        (80, HTTP_PORT, "0.0.0.0"),  # noqa: S104 - the public entry
        (443, HTTPS_PORT, "0.0.0.0"),  # noqa: S104 - the public entry
    ]
    assert spec.data, "the certificates outlive the container"


def test_the_api_is_reached_through_the_ingress_alone() -> None:
    parts = by_part({"frontend": {"enabled": True}})
    assert not any(parts[name].publish for name in ("api-1", "api-2")), "a way round its limits for each client"
    assert parts["frontend"].environment["API_URL"] == f"http://ingress:{INTERNAL_PORT}"


def test_the_root_of_a_private_authority_reaches_caddy_as_a_file() -> None:
    values = {"domain": DOMAIN, "acmeDirectory": "https://ca.example.org/dir", "acmeRoot": "-----BEGIN…"}
    files = ingress.files(environment({"ingress": values}))
    assert files["acme-root.pem"] == "-----BEGIN…"
    assert "\tacme_ca_root /etc/samokoder/acme-root.pem\n" in str(files["Caddyfile"])


def test_a_redirect_names_the_hosts_own_port_for_https() -> None:
    text = caddyfile(environment({"ingress": {"domain": DOMAIN, "httpsPort": 9443}}))
    assert f"redir https://{DOMAIN}:9443{{uri}} 308" in text


@pytest.mark.parametrize(
    ("stable", "replicas", "memory"), [(15, 2, "14s"), (60, 3, "59s"), (0, 2, "7s"), (60, 1, "7s")]
)
def test_failures_are_remembered_for_as_long_as_a_replica_has_to_be_steady(
    stable: int, replicas: int, memory: str
) -> None:
    api = {"stableSeconds": stable, "replicas": replicas, "health": {"waitTimeoutSeconds": 300}}
    text = caddyfile(environment({"api": api, "host": {"memoryMib": 8192}}))
    remembered = re.findall(r"fail_duration (\w+)", text)
    slow = f"{min(10, int(memory[:-1]))}s"
    each = [memory] if replicas == 1 else [slow, memory, memory]
    assert remembered == each * replicas, "a lone replica has nobody who serves while it is not let in"
    assert ("@ill-api-1" in text) is (replicas > 1), "a lone replica that drains is left out: the next one comes"


def test_with_a_traefik_there_is_no_ingress_and_nothing_of_the_application_is_published() -> None:
    parts = by_part(TRAEFIK)
    assert "ingress" not in parts
    assert not any(parts[name].publish for name in ("api-1", "api-2"))


def test_replicas_join_traefiks_network_with_equal_labels() -> None:
    parts = by_part(TRAEFIK)
    for name in ("api-1", "api-2"):
        assert parts[name].external_networks == ("proxy",)
        assert NetworkName.EDGE in parts[name].networks
    labels = dict(parts["api-1"].labels)
    assert labels == parts["api-2"].labels, "Traefik takes them as one service only when they say the same"
    assert labels["traefik.enable"] == "true"
    assert labels["traefik.docker.network"] == "proxy", "it would try an address on a network that it is not on"
    assert labels["traefik.http.services.samokoder-staging-api.loadbalancer.server.port"] == "8000"
    assert labels["traefik.http.services.samokoder-staging-api.loadbalancer.healthcheck.path"] == "/health"
    assert labels[f"{ROUTER}.entrypoints"] == "websecure"
    assert labels[f"{ROUTER}.tls.certresolver"] == "letsencrypt"


def test_behind_a_traefik_its_address_alone_is_believed() -> None:
    for part in ("api-1", "api-2", "frontend"):
        values = merged(TRAEFIK, {"frontend": {"enabled": True}})
        trusted = by_part(values)[part].environment["TRUSTED_PROXIES"]
        assert trusted == "172.30.0.2", "a neighbour on its network invents an address for each request"
    with pytest.raises(InvalidSettingsError) as caught:
        environment({"ingress": {"kind": "traefik", "domain": DOMAIN, "traefik": {"network": "proxy"}}})
    assert [each.key for each in caught.value.mistakes] == ["samokoder:ingress.traefik.address"]


@pytest.mark.parametrize(
    ("network", "is_warned_of"),
    [
        ("10.0.0.0/8", True),
        ("172.16.0.0/12", True),
        ("100.64.0.0/10", True),
        ("fd00::/48", True),
        ("10.0.3.7/32", False),
        ("10.0.3.0/24", False),
        ("fd00::7/128", False),
        # A CDN's.
        ("104.16.0.0/13", False),
        ("2606:4700::/32", False),
    ],
)
def test_a_private_network_that_users_may_be_in_is_warned_of_as_a_load_balancer(
    network: str, *, is_warned_of: bool
) -> None:
    said = [each for each in warnings(environment({"ingress": {"trustedProxies": [network]}})) if network in each]
    assert bool(said) is is_warned_of, "an office behind its own balancer is one client to the rate limits"
    assert all("samokoder:ingress.trustedProxies" in each for each in said)


def test_the_example_of_trusted_proxies_is_not_warned_of() -> None:
    for example in IngressSettings.model_fields["trusted_proxies"].examples or ():
        told = warnings(environment({"ingress": {"trustedProxies": example}}))
        assert not [each for each in told if "trustedProxies" in each]


PREFIXED: Mapping[str, Any] = {"ingress": {"stripPrefix": "/api"}}
METRICS = ["/metrics", "/metrics/", "/metrics/x", "/metrics\n"]
BEHIND = [
    "/api/metrics",
    "/api/metrics/x",
    "/api//metrics",
    "/api/api/metrics",
    "/api/v1/metrics/x",
    "/api/a\nb/metrics\n",
]
# As Traefik compares them: a slash that is written so stays as it is, and the application reads it as one.
WRITTEN = ["/metrics%2F", "/metrics%2fx", "/%2Fmetrics", "//metrics"]
WRITTEN_BEHIND = ["/api%2Fmetrics", "/api/api%2fmetrics", "/api%2fv1%2Fmetrics%2Fx"]
OPEN = ["/", "/metricsx", "/projects", "/api/v1/projects", "/api/metricsx", "/apimetrics"]


@pytest.mark.parametrize("frontend", [False, True])
@pytest.mark.parametrize("prefixed", [False, True])
def test_traefik_gets_no_rule_for_the_metrics(frontend: bool, prefixed: bool) -> None:
    values = merged(merged(TRAEFIK, {"frontend": {"enabled": frontend}}), PREFIXED if prefixed else {})
    labels = [item for spec in by_part(values).values() for item in spec.labels.items()]
    rules = [value for label, value in labels if label.endswith(".rule")]
    assert rules
    for rule in rules:
        (hidden,) = re.findall(r" && !PathRegexp\(`([^`]+)`\)", rule)
        for path in METRICS + WRITTEN + (BEHIND + WRITTEN_BEHIND if prefixed else []):
            assert re.search(hidden, path), f"{path!r} shows the metrics to the world"
        assert not [path for path in OPEN if re.search(hidden, path)]


def test_traefik_takes_the_prefix_off_only_what_is_behind_it() -> None:
    labels = by_part(merged(TRAEFIK, PREFIXED))["api-1"].labels
    for uploads in ("", "-uploads"):
        assert "strip" not in labels[f"{ROUTER}{uploads}.middlewares"], "/apimetrics would reach the API as /metrics"
        behind = f"{ROUTER}-prefixed{uploads}"
        assert "samokoder-staging-api-strip" in labels[f"{behind}.middlewares"].split(",")
        assert labels[f"{behind}.rule"].count("(Path(`/api`) || PathPrefix(`/api/`))") == 1
        assert int(labels[f"{behind}.priority"]) > int(labels[f"{ROUTER}{uploads}.priority"])


def test_caddy_hides_the_metrics_wherever_they_are_behind_the_prefix() -> None:
    # Which spellings of a path Caddy finds by these is in tests/render/test_ingress.py.
    text = caddyfile(environment(PREFIXED))
    (everywhere,) = re.findall(r"@metrics path_regexp (\S+)", text)
    assert all(re.search(everywhere, path) for path in METRICS)
    assert not [path for path in OPEN if re.search(everywhere, path)]
    (within,) = re.findall(r"@within path_regexp (\S+)", text)
    left = [path.removeprefix("/api") for path in BEHIND]
    assert all(re.search(within, path) for path in left), "an image that knows its prefix takes it off once more"
    assert not [path for path in OPEN if re.search(within, path)]
    block = text.partition("handle @prefixed {")[2]
    assert block.index("uri strip_prefix /api") < block.index("handle @within {") < block.index("reverse_proxy")


@pytest.mark.parametrize(
    ("ingress_settings", "shown"),
    [
        ({}, True),
        ({"bindAddress": "::1"}, True),
        ({"domain": DOMAIN}, False),
        ({"domain": DOMAIN, "bindAddress": "127.0.0.1"}, False),
        ({"bindAddress": "192.0.2.1", "bindReason": "a load balancer"}, False),
        ({"trustedProxies": ["127.0.0.1/32"]}, False),
    ],
)
def test_the_metrics_are_handed_on_only_where_the_ingress_is_on_loopback_and_has_no_domain(
    ingress_settings: Mapping[str, Any], shown: bool
) -> None:
    text = caddyfile(environment({"ingress": dict(ingress_settings), "frontend": {"enabled": True}}))
    assert ("handle @own_metrics {" in text) is shown
    assert "handle @metrics {\n\t\terror 404" in text, "whoever else asks finds nothing"
    internal = text.partition(f"http://:{INTERNAL_PORT} {{")[2].partition("\n}\n")[0]
    assert "import app" in internal
    assert "own_metrics" not in internal, "the frontend asks for its users, from inside"


def test_in_production_the_metrics_are_handed_on_to_nobody() -> None:
    # `proxy_pass http://127.0.0.1:8000;` alone: nginx sends `Host: 127.0.0.1:8000`, and no header says for whom.
    trial = environment({})
    assert "handle @own_metrics {" in caddyfile(trial)
    settings = trial.settings.model_copy(update={"production": True})
    text = caddyfile(trial.model_copy(update={"settings": settings}))
    assert "own_metrics" not in text, "without a domain a proxy is in front, whose requests look like this machine's"
    assert "handle @metrics {\n\t\terror 404" in text


def test_nobody_outside_says_which_path_the_application_is_to_see() -> None:
    for name in ("SCRIPT_NAME", "PATH_INFO"):
        app = caddyfile(environment({})).partition("(app) {")[2].partition("\n}")[0]
        assert f"\n\trequest_header -{name}\n" in app, (
            "an older Gunicorn serves /metrics by it where it is not asked for"
        )
        labels = by_part(TRAEFIK)["api-1"].labels
        removed = f"traefik.http.middlewares.samokoder-staging-api-headers.headers.customrequestheaders.{name}"
        assert labels[removed] == "", "Traefik removes a header that is to be empty"
        for router in (ROUTER, f"{ROUTER}-uploads"):
            assert "samokoder-staging-api-headers" in labels[f"{router}.middlewares"].split(",")


def test_traefik_limits_what_is_sent_and_never_holds_back_an_answer_to_a_get() -> None:
    labels = by_part(TRAEFIK)["api-1"].labels
    used = {name: labels[f"{ROUTER}{name}.middlewares"].split(",") for name in ("", "-uploads")}
    assert not any(name.endswith("-limit") for name in used[""]), "an event stream would come in one piece"
    assert used["-uploads"][0] == "samokoder-staging-api-limit"
    assert "(Method(`POST`) || Method(`PUT`) || Method(`PATCH`))" in labels[f"{ROUTER}-uploads.rule"]
    limit = "traefik.http.middlewares.samokoder-staging-api-limit.buffering.maxrequestbodybytes"
    assert labels[limit] == str(10 * 2**20)
    declared = {found[1] for label in labels if (found := re.match(r"traefik\.http\.middlewares\.([\w-]+)\.", label))}
    assert {name for names in used.values() for name in names} == declared


def test_traefik_sends_the_apis_paths_to_the_api_and_all_else_to_the_frontend() -> None:
    parts = by_part(merged(TRAEFIK, {"frontend": {"enabled": True}}))
    api, frontend = parts["api-1"].labels, parts["frontend"].labels
    page = "traefik.http.routers.samokoder-staging-frontend"
    assert "PathPrefix(`/projects`) || PathPrefix(`/jobs/`)" in api[f"{ROUTER}.rule"]
    assert "|| Path(`/health`)" in api[f"{ROUTER}.rule"]
    assert "PathPrefix(`/projects`)" not in frontend[f"{page}.rule"]
    ranks = [api[f"{ROUTER}-uploads.priority"], frontend[f"{page}-uploads.priority"]]
    ranks += [api[f"{ROUTER}.priority"], frontend[f"{page}.priority"]]
    assert ranks == sorted(ranks, key=int, reverse=True), "the frontend's rule has every path: the API's comes first"
    assert len(set(ranks)) == 4


def test_without_a_certificate_resolver_traefik_is_told_nothing_of_tls() -> None:
    values = merged(TRAEFIK, {"ingress": {"traefik": {"certResolver": "", "entrypoint": "web"}}})
    labels = by_part(values)["api-1"].labels
    assert not [label for label in labels if ".tls" in label]
    assert labels[f"{ROUTER}.entrypoints"] == "web"


def test_with_a_caddy_of_our_own_no_container_has_a_label_or_a_network_of_a_traefik() -> None:
    for spec in specs(environment({"frontend": {"enabled": True}})):
        assert not spec.labels
        assert not spec.external_networks
