"""Alerts on the blackbox exporter's probes of the stack's pages and of the public addresses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from stack.monitoring.alerts import NEW, NEW_FOR, Alert, Group, Recording, Text, number, share
from stack.parts.blackbox_exporter.spec import FAMILY, PUBLIC, SIX, by_family
from stack.settings.alerts import Alerts
from stack.settings.environment import Environment
from stack.spec.service import ServiceSpec

# The probe has the part whose page it asks as its own label.
alert = partial(Alert, service="{{ $labels.service }}", dashboard="samokoder-monitoring")

EXPIRY = "probe_ssl_earliest_cert_expiry"
# The last one that was seen: a probe that fails has none.
_LAST = f"last_over_time({EXPIRY}[10m])"
LEFT = f"{_LAST} - time()"


def _life() -> Recording:
    """Record the longest time that was left of the certificate that is shown now: its life, or less.

    The exporter tells when a certificate ends and not when it begins, but one that was renewed is seen from its first
    hour on. Of one that was there before, life is what was left then, so that its alerts come later.
    """
    name, now = "probe:tls_life:seconds", f"last_over_time({EXPIRY}[10m] @ end())"
    # What was recorded before goes on for as long as the certificate lives, which may be longer than samples are kept;
    # in its first hour the recorded life may be that of the certificate before it.
    # The sum takes the name away, or both would be series of their own.
    earlier = f"{name} + 0 and {EXPIRY} offset 1h == {now} or {EXPIRY} - time()"
    longest = f"max_over_time((({earlier}) and {EXPIRY} == {now})[15d:1h])"
    return Recording(name=name, expression=f"clamp_min({longest} or {LEFT}, 1)")


LIFE = _life()
# No public authority gives a certificate a life between a week and 45 days. So such a life is mostly that of a
# certificate that was there before Prometheus: without its real life of 45 days or more, its alerts come days later.
_SEEN_LATE = f"({LIFE.name} > {7 * 86400} < {45 * 86400}) * 0 + {45 * 86400}"
LIFE_LEFT = f"({LEFT}) / ({_SEEN_LATE} or {LIFE.name})"


def group(environment: Environment, parts: Sequence[ServiceSpec]) -> Group:
    """Return the rules."""
    once = by_family(environment)
    return Group(name="probes", rules=[LIFE, _failed(environment), *_alerts(environment.settings.alerts, once=once)])


def _failed(environment: Environment) -> Alert:
    # A page that has not answered yet may be one of a part that a first `make up` has not made yet.
    expression = f"probe_success == 0 unless (max_over_time(probe_success[{NEW_FOR}]) == 0 and on () {NEW})"
    summary = Text(en="{{ $labels.instance }} does not answer", ru="{{ $labels.instance }} не отвечает")
    if by_family(environment):
        # Without an AAAA record nobody is led to IPv6, so nobody misses it: the exporter had no address to ask.
        expression += f' unless probe_ip_protocol{{service="{PUBLIC}", {FAMILY}="{SIX}"}} == 0'
        family = f"{{{{ $labels.{FAMILY} }}}}"
        en, ru = (f"{{{{ if $labels.{FAMILY} }}}} {by} {family}{{{{ end }}}}" for by in ("by", "по"))
        summary = Text(en=summary.en + en, ru=summary.ru + ru)
    return alert(
        name="ProbeFailed",
        expression=expression,
        # ApiDown, IngressNoReplica, ContainerMissing and their likes say more: they come first, and keep this one back.
        wait="4m",
        severity="critical",
        summary=summary,
        description=Text(
            en="It gives no answer, or another one than 2xx, to a client inside the stack.",
            ru="Клиент внутри стека не получает ответа или получает не 2xx.",
        ),
    )


def _alerts(alerts: Alerts, *, once: bool) -> Iterator[Alert]:
    """Yield the others. once: an address that is asked by each family has one certificate, and one alert."""
    slow, left, life_left = "avg_over_time(probe_duration_seconds[10m])", LEFT, LIFE_LEFT
    if once:
        slow = f"max without ({FAMILY}) ({slow})"
        left, life_left = (f"min without ({FAMILY}) ({each})" for each in (left, life_left))
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
    soon_percent, very_soon_percent = alerts.tls_expires_percent, alerts.tls_expires_very_soon_percent
    # Both: of a certificate of a year 20 % are months, and one of six days has never 21 days left.
    ends_soon = f"{left} < {soon} * 86400 and {life_left} < {share(soon_percent)}"
    ends_very_soon = f"{left} < {very_soon} * 86400 and {life_left} < {share(very_soon_percent)}"
    yield alert(
        name="TlsCertificateExpiresSoon",
        expression=f"{ends_soon} unless ({ends_very_soon})",
        wait="1h",
        severity="warning",
        summary=Text(
            en="the certificate of {{ $labels.instance }} expires", ru="истекает сертификат {{ $labels.instance }}"
        ),
        description=Text(
            en="{{ $value | humanizeDuration }} are left; the thresholds are "
            f"{number(soon_percent)} % of its life and {soon} days.",
            ru=f"Осталось {{{{ $value | humanizeDuration }}}}; пороги — {number(soon_percent)} % срока и {soon} дн.",
        ),
    )
    yield alert(
        name="TlsCertificateExpiresVerySoon",
        expression=ends_very_soon,
        wait="5m",
        severity="critical",
        summary=Text(
            en="the certificate of {{ $labels.instance }} is about to end",
            ru="сертификат {{ $labels.instance }} вот-вот истечёт",
        ),
        description=Text(
            en="{{ $value | humanizeDuration }} are left, then browsers refuse it; the thresholds are "
            f"{number(very_soon_percent)} % of its life and {very_soon} days.",
            ru="Осталось {{ $value | humanizeDuration }}, потом браузеры его отвергнут; "
            f"пороги — {number(very_soon_percent)} % срока и {very_soon} дн.",
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
