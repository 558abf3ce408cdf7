"""Grafana: data source and dashboards come from files; only the admin can log in, with a generated password."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from stack.common.names import NetworkName
from stack.monitoring import access
from stack.settings.environment import Environment
from stack.spec import health
from stack.spec.files import Files, Template, secret_file, yaml_text
from stack.spec.rotation import slots
from stack.spec.secrets import PROMETHEUS_WEB
from stack.spec.service import DataVolume, Publish, Scrape, ServiceSpec

PART = "grafana"
PORT = 3000
DATASOURCE = "prometheus"
HOME = "samokoder-overview"
"""Uid of the dashboard that a person sees after the login."""
UNUSED_PLUGINS = (
    "cloudwatch",
    "elasticsearch",
    "grafana-postgresql-datasource",
    "grafana-pyroscope-datasource",
    "influxdb",
    "jaeger",
    "loki",
    "mssql",
    "mysql",
    "opentsdb",
    "stackdriver",
    "tempo",
    "zipkin",
)
"""All bundled data sources but Prometheus. Names that an image does not have are ignored."""


def spec(environment: Environment) -> ServiceSpec:
    """Describe Grafana without its files, which depend on all dashboards: see `files`."""
    settings = environment.settings.grafana
    return ServiceSpec(
        part=PART,
        component="samokoder:monitoring:Grafana",
        image=environment.image("grafana"),
        user="472:0",
        settings=settings,
        environment={
            # Two underscores: with one, Grafana's entrypoint ignores the variable and the password stays `admin`.
            "GF_SECURITY_ADMIN_PASSWORD__FILE": "/etc/samokoder/admin_password",
            "GF_SECURITY_SECRET_KEY__FILE": "/etc/samokoder/secret_key",
            "GF_PATHS_PROVISIONING": "/etc/samokoder/provisioning",
            # Grafana's own home page requests a blog from grafana.com, and shows an error if it cannot reach it.
            "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": f"/etc/samokoder/{_dashboard_file(HOME)}",
            "GF_SERVER_ROOT_URL": f"{settings.address}/",
            "GF_USERS_ALLOW_SIGN_UP": "false",
            "GF_AUTH_ANONYMOUS_ENABLED": "false",
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
            "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
            "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
            "GF_NEWS_NEWS_FEED_ENABLED": "false",
            "GF_SECURITY_DISABLE_GRAVATAR": "true",
            # Grafana would download plugins at every start and replace the bundled Prometheus plugin, which fails on a
            # read-only root: Grafana would be healthy, but every panel empty.
            "GF_PLUGINS_PREINSTALL_DISABLED": "true",
            "GF_PLUGINS_PREINSTALL_AUTO_UPDATE": "false",
            # Since 13.2 Grafana starts a process for each of these plugins, even if it is not used.
            "GF_PLUGINS_DISABLE_PLUGINS": ",".join(UNUSED_PLUGINS),
            # Grafana is reached over loopback and tunnels, where compression only costs memory.
            "GF_SERVER_ENABLE_GZIP": "false",
            "GF_LOG_MODE": "console",
        },
        data=DataVolume(name="grafana", path="/var/lib/grafana", adopt=settings.adopt_volume),
        publish=Publish.of(settings, PORT, "/api/health"),
        health_command=health.wget(PORT, "/api/health"),
        networks=(NetworkName.EDGE, NetworkName.MONITORING),
        scrape=Scrape(port=PORT),
    )


def files(environment: Environment, dashboards: Mapping[str, str]) -> Files:
    """Return the provisioning files, the dashboards and the secrets. dashboards: the JSON text of each by its uid."""
    scraped = environment.settings.prometheus.scrape_interval
    return {
        "admin_password": secret_file(slots(environment, "grafana_admin").in_use),
        "secret_key": secret_file("grafana_secret_key"),
        "provisioning/datasources/samokoder.yml": Template((PROMETHEUS_WEB,), partial(datasources_yml, scraped))
        if environment.basic_auth
        else datasources_yml(scraped),
        "provisioning/dashboards/samokoder.yml": providers_yml(),
        # Empty provisioning files: Grafana logs an error at every start for each of these folders that is missing.
        **{f"provisioning/{kind}/samokoder.yml": yaml_text({"apiVersion": 1}) for kind in ("plugins", "alerting")},
        **{_dashboard_file(uid): text for uid, text in dashboards.items()},
    }


def _dashboard_file(uid: str) -> str:
    return f"dashboards/{uid}.json"


def datasources_yml(scrape_interval: str, password: str = "") -> str:
    """Render the data source. Its uid must never change while its name stays, because Grafana would keep the old uid.

    scrape_interval: Grafana computes $__rate_interval from it. password: of Prometheus' pages, empty if it has none;
    Grafana stores it encrypted with its secret key.
    """
    login = {
        "basicAuth": True,
        "basicAuthUser": access.USER,
        "secureJsonData": {"basicAuthPassword": password},
    }
    document = {
        "apiVersion": 1,
        "prune": True,
        "datasources": [
            {
                "name": "Prometheus",
                "uid": DATASOURCE,
                "type": "prometheus",
                "access": "proxy",
                "url": "http://prometheus:9090",
                "isDefault": True,
                "editable": False,
                "jsonData": {"timeInterval": scrape_interval, "httpMethod": "POST"},
                **(login if password else {}),
            }
        ],
    }
    return yaml_text(document)


def providers_yml() -> str:
    """Render the provider of the dashboards, which come only from files and cannot be edited in Grafana."""
    document = {
        "apiVersion": 1,
        "providers": [
            {
                "name": "samokoder",
                "folder": "Samokoder",
                "type": "file",
                "disableDeletion": True,
                "allowUiUpdates": False,
                "options": {"path": "/etc/samokoder/dashboards"},
            }
        ],
    }
    return yaml_text(document)
