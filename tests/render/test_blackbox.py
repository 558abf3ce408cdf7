from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
import yaml

from stack.parts.blackbox_exporter import spec as blackbox_exporter
from stack.settings.environment import Environment
from stack.spec.files import yaml_document
from tests.described import specs
from tests.recording import CASES, Config, case_environment, environment_of
from tests.render.conftest import Laboratory, output, wait_until

SERVER = """
import http.server, ssl
server = http.server.HTTPServer(("", 8443), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/tls/cert.pem", "/tls/key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
DAYS = 10


@pytest.mark.parametrize("case", CASES)
def test_every_published_page_and_every_public_address_is_probed(case: str) -> None:
    environment = case_environment(case)
    parts = specs(environment)
    (job,) = blackbox_exporter.probe_jobs(environment, parts)
    probed = {config["labels"]["service"]: config["targets"] for config in job["static_configs"]}
    public = {blackbox_exporter.PUBLIC} if environment.settings.ingress.domain else set()
    pages = {part.part for part in parts if part.publish}
    assert probed.keys() == pages | public, "a page that nobody asks for may be down"
    for part in parts:
        if part.publish:
            assert probed[part.part] == [f"http://{part.part}:{part.publish.container_port}{part.publish.path}"]


@pytest.mark.parametrize(
    ("ingress", "address"),
    [
        ({}, "https://samokoder.example.org/health"),
        ({"httpsPort": 8443}, "https://samokoder.example.org:8443/health"),
        (
            {"kind": "traefik", "traefik": {"network": "proxy", "address": "172.30.0.2"}},
            "https://samokoder.example.org/health",
        ),
    ],
)
def test_the_domain_is_probed_as_a_user_comes_to_it(ingress: dict[str, object], address: str) -> None:
    values = {"ingress": {"domain": "samokoder.example.org", **ingress}, "blackboxExporter": {"urls": [address]}}
    environment = environment_of("staging", values)
    (job,) = blackbox_exporter.probe_jobs(environment, specs(environment))
    (public,) = [page for page in job["static_configs"] if page["labels"]["service"] == blackbox_exporter.PUBLIC]
    assert public["targets"] == [address], "its certificate would expire unseen, or it would be asked twice"


def test_a_guarded_page_must_ask_for_its_password_and_an_open_one_answer() -> None:
    environment = environment_of("staging", {"basicAuth": "always"})
    parts = specs(environment)
    (job,) = blackbox_exporter.probe_jobs(environment, parts)
    asked = {c["labels"]["service"]: c["labels"]["__param_module"] for c in job["static_configs"]}
    guarded = {part.part for part in parts if part.web_password}
    assert guarded == {"prometheus", "alertmanager", "logs"}
    assert {part for part, module in asked.items() if module == blackbox_exporter.GUARDED} == guarded
    (exporter,) = [part for part in parts if part.part == blackbox_exporter.PART]
    modules = yaml_document(str(exporter.files["blackbox.yml"]))["modules"]
    assert modules.keys() == set(asked.values()), "a module that is missing fails every probe, one too many asks nobody"
    assert modules[blackbox_exporter.GUARDED]["http"]["valid_status_codes"] == [401], "200 is a page that lost its lock"


@pytest.mark.parametrize("case", CASES)
def test_the_exporter_which_asks_whatever_it_is_told_has_no_secret(case: str) -> None:
    (spec,) = [part for part in specs(case_environment(case)) if part.part == blackbox_exporter.PART]
    made = [content for content in spec.files.values() if not isinstance(content, str)]
    assert not made, "who reaches its port would have that secret sent to an address of his own"
    assert not spec.secret_environment
    assert "password" not in str(spec.files["blackbox.yml"])


@pytest.mark.parametrize(
    ("ingress", "own"),
    [
        ({}, []),
        ({"port": 80, "bindAddress": "10.0.0.5", "bindReason": "a test"}, ["http://10.0.0.5/health"]),
        ({"bindAddress": "2001:db8::5", "bindReason": "a test"}, ["http://[2001:db8::5]:8000/health"]),
        (
            {"domain": "samokoder.example.org"},
            ["https://samokoder.example.org/health", "https://samokoder.example.org/"],
        ),
    ],
)
def test_addresses_that_lead_here_are_one_service_and_all_others_another(ingress: Config, own: list[str]) -> None:
    urls = [*own, "https://www.example.org", "https://samokoder.example.org.example.net/"]
    environment = environment_of("staging", {"ingress": ingress, "blackboxExporter": {"urls": urls}})
    (job,) = blackbox_exporter.probe_jobs(environment, specs(environment))
    parts = {part.part for part in specs(environment)}
    asked = {c["labels"]["service"]: c["targets"] for c in job["static_configs"] if c["labels"]["service"] not in parts}
    assert asked == ({"public": own} if own else {}) | {"external": urls[-2:]}


@pytest.mark.live
def test_a_probe_over_tls_tells_how_long_the_certificate_lasts(
    laboratory: Laboratory, environment: Environment, tmp_path: Path
) -> None:
    words = f"openssl req -x509 -newkey rsa:2048 -nodes -days {DAYS} -subj /CN=public -addext subjectAltName=DNS:public"
    subprocess.run(
        [*words.split(), "-keyout", "key.pem", "-out", "cert.pem"], cwd=tmp_path, check=True, capture_output=True
    )
    certificate, key = (tmp_path / "cert.pem").read_text(), (tmp_path / "key.pem").read_text()
    (spec,) = [part for part in specs(environment) if part.part == blackbox_exporter.PART]
    rendered = yaml_document(str(spec.files["blackbox.yml"]))
    # No authority that the world trusts signs for a laboratory; all else is as it runs.
    rendered["modules"][blackbox_exporter.OPEN]["http"]["tls_config"] = {"ca_file": "/etc/samokoder/ca.pem"}
    server = laboratory.shell(
        environment.image("python"),
        {"/tls/cert.pem": certificate, "/tls/key.pem": key, "/tls/server.py": SERVER},
        alias="public",
    )
    server.exec_run(["python", "/tls/server.py"], detach=True)
    exporter = laboratory.healthy_part(spec, replaced={"blackbox.yml": yaml.safe_dump(rendered), "ca.pem": certificate})

    def probe() -> str:
        address = f"http://127.0.0.1:{blackbox_exporter.PORT}/probe?module={blackbox_exporter.OPEN}"
        return output(exporter, "wget", "-q", "-O", "-", f"{address}&target=https://public:8443/")[1]

    wait_until(exporter, lambda: "probe_success 1" in probe())
    values = dict(line.rsplit(" ", 1) for line in probe().splitlines() if line and not line.startswith("#"))
    days = (float(values["probe_ssl_earliest_cert_expiry"]) - time.time()) / 86400
    assert DAYS - 1 < days <= DAYS, "the alert on the expiry would speak of another day"
