"""Grafana: datasource and dashboards from files, an admin password of its own, nobody else let in."""

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
"""The bundled datasources without Prometheus. A name that an image does not have does no harm."""


def spec(environment: Environment) -> ServiceSpec:
    """Describe Grafana, without its files: these follow from all dashboards, see `files`."""
    settings = environment.settings.grafana
    return ServiceSpec(
        part=PART,
        component="samokoder:monitoring:Grafana",
        image=environment.image("grafana"),
        user="472:0",
        settings=settings,
        environment={
            # Two underscores: with one, Grafana's entrypoint ignores it and admin/admin stays.
            "GF_SECURITY_ADMIN_PASSWORD__FILE": "/etc/samokoder/admin_password",
            "GF_SECURITY_SECRET_KEY__FILE": "/etc/samokoder/secret_key",
            "GF_PATHS_PROVISIONING": "/etc/samokoder/provisioning",
            # Grafana's own first page asks grafana.com for its blog, and shows an error where it may not.
            "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": f"/etc/samokoder/{_dashboard_file(HOME)}",
            "GF_SERVER_ROOT_URL": f"{settings.address}/",
            "GF_USERS_ALLOW_SIGN_UP": "false",
            "GF_AUTH_ANONYMOUS_ENABLED": "false",
            "GF_ANALYTICS_REPORTING_ENABLED": "false",
            "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
            "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
            "GF_NEWS_NEWS_FEED_ENABLED": "false",
            "GF_SECURITY_DISABLE_GRAVATAR": "true",
            # It would replace the bundled Prometheus plugin, which it cannot on a read-only root: Grafana would be
            # healthy and every panel empty. It would fetch from the internet at every start, too.
            "GF_PLUGINS_PREINSTALL_DISABLED": "true",
            "GF_PLUGINS_PREINSTALL_AUTO_UPDATE": "false",
            # Since 13.2 each of these is a process of its own that starts with Grafana, used or not.
            "GF_PLUGINS_DISABLE_PLUGINS": ",".join(UNUSED_PLUGINS),
            # It is reached over loopback and tunnels; compressing there costs memory alone.
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
        # Nothing is provisioned there, and without the folders Grafana logs an error for each at every start.
        **{f"provisioning/{kind}/samokoder.yml": yaml_text({"apiVersion": 1}) for kind in ("plugins", "alerting")},
        **{_dashboard_file(uid): text for uid, text in dashboards.items()},
    }


def _dashboard_file(uid: str) -> str:
    return f"dashboards/{uid}.json"


def datasources_yml(scrape_interval: str, password: str = "") -> str:
    """Render the datasource; its uid must never change under its name, or Grafana keeps the old one.

    scrape_interval: Grafana computes $__rate_interval from it. password: Prometheus' own, where it asks for one;
    Grafana stores it encrypted under its secret key.
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
    """Render the provider of the dashboards: files alone, not editable by hand."""
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
