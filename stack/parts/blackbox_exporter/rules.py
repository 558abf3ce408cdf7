"""Alerts on the blackbox exporter's probes of the stack's pages and of the public addresses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from stack.monitoring.alerts import Alert, Group, Text, number
from stack.parts.blackbox_exporter.spec import FAMILY, PUBLIC, SIX, by_family
from stack.settings.alerts import Alerts
from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec

# The probe has the part whose page it asks as its own label.
alert = partial(Alert, service="{{ $labels.service }}", dashboard="samokoder-monitoring")

# The last one that was seen: a probe that fails has none.
LEFT = "last_over_time(probe_ssl_earliest_cert_expiry[10m]) - time()"


def group(environment: Environment, parts: Sequence[ServiceSpec]) -> Group:
    """Return the rules."""
    once = by_family(environment)
    return Group(name="probes", rules=[*_failed(environment), *_alerts(environment.settings.alerts, once=once)])


def _failed(environment: Environment) -> Iterator[Alert]:
    # Users come by a public address, and nothing else tells of it. Of a part of the stack that is down, ApiDown,
    # ContainerMissing and their likes say more: they come first, and keep this one back.
    public = Text(en="{{ $labels.instance }} does not answer", ru="{{ $labels.instance }} не отвечает")
    here, there = f'service="{PUBLIC}"', f'service!="{PUBLIC}"'
    of_users = f"probe_success{{{here}}} == 0"
    if by_family(environment):
        # Without an AAAA record nobody is led to IPv6, so nobody misses it: the exporter had no address to ask.
        of_users += f' unless probe_ip_protocol{{{here}, {FAMILY}="{SIX}"}} == 0'
        family = f"{{{{ $labels.{FAMILY} }}}}"
        en, ru = (f"{{{{ if $labels.{FAMILY} }}}} {by} {family}{{{{ end }}}}" for by in ("by", "по"))
        public = Text(en=public.en + en, ru=public.ru + ru)
    kinds = [(of_users, "2m", PUBLIC, public)]
    kinds.append((f"probe_success{{{there}}} == 0", "4m", "{{ $labels.service }}", public))
    for expression, wait, service, summary in kinds:
        yield alert(
            name="ProbeFailed",
            expression=expression,
            wait=wait,
            service=service,
            severity="critical",
            summary=summary,
            description=Text(
                en="It gives no answer, or another one than 2xx, to a client inside the stack.",
                ru="Клиент внутри стека не получает ответа или получает не 2xx.",
            ),
        )


def _alerts(alerts: Alerts, *, once: bool) -> Iterator[Alert]:
    """Yield the others. once: an address that is asked by each family has one certificate, and one alert."""
    slow, left = "avg_over_time(probe_duration_seconds[10m])", LEFT
    if once:
        slow, left = f"max without ({FAMILY}) ({slow})", f"min without ({FAMILY}) ({left})"
    yield alert(
        name="ProbeSlow",
        expression=f"{slow} > {number(alerts.probe_seconds)}",
        wait="10m",
        severity="warning",
        summary=Text(en="{{ $labels.instance }} answers slowly", ru="{{ $labels.instance }} отвечает медленно"),
        description=Text(
            en='A probe takes {{ printf "%.1f" $value }} s on average of ten minutes; '
            f"the threshold is {number(alerts.probe_seconds)} s.",
            ru='Проверка в среднем за десять минут длится {{ printf "%.1f" $value }} с; '
            f"порог — {number(alerts.probe_seconds)} с.",
        ),
    )
    soon, very_soon = number(alerts.tls_expires_days), number(alerts.tls_expires_very_soon_days)
    yield alert(
        name="TlsCertificateExpiresSoon",
        expression=f"{left} < {soon} * 86400 and {left} >= {very_soon} * 86400",
        wait="1h",
        severity="warning",
        summary=Text(
            en="the certificate of {{ $labels.instance }} expires", ru="истекает сертификат {{ $labels.instance }}"
        ),
        description=Text(
            en=f"{{{{ $value | humanizeDuration }}}} are left; the threshold is {soon} days.",
            ru=f"Осталось {{{{ $value | humanizeDuration }}}}; порог — {soon} дн.",
        ),
    )
    yield alert(
        name="TlsCertificateExpiresVerySoon",
        expression=f"{left} < {very_soon} * 86400",
        wait="5m",
        severity="critical",
        summary=Text(
            en="the certificate of {{ $labels.instance }} is about to end",
            ru="сертификат {{ $labels.instance }} вот-вот истечёт",
        ),
        description=Text(
            en="{{ $value | humanizeDuration }} are left, then browsers refuse it; "
            f"the threshold is {very_soon} days.",
            ru=f"Осталось {{{{ $value | humanizeDuration }}}}, потом браузеры его отвергнут; порог — {very_soon} дн.",
        ),
    )
    yield alert(
        name="BlackboxConfigReloadFailed",
        expression="blackbox_exporter_config_last_reload_successful == 0",
        wait="10m",
        severity="warning",
        service="blackbox-exporter",
        summary=Text(
            en="the blackbox exporter refuses its configuration", ru="blackbox exporter не принимает конфигурацию"
        ),
        description=Text(
            en="It goes on with the one before, and ends at the next start.",
            ru="Пока действует прежняя, а следующий запуск завершится ошибкой.",
        ),
    )
