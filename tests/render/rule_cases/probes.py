"""The probes' alerts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from stack.parts.blackbox_exporter.spec import by_family
from stack.settings.environment import Environment
from tests.render.rule_cases.model import HISTORY, Case, Fires, pair, stays

AT = {"job": "probe", "instance": "https://example.org/health", "service": "public"}
PROBE = ",".join(f'{name}="{value}"' for name, value in AT.items())
HOUR = 3600
DAY = 24 * HOUR


def _down(labels: Mapping[str, str]) -> Fires:
    return Fires(
        labels={**labels, "severity": "critical"},
        summary=f"{labels['instance']} does not answer",
        description="It gives no answer, or another one than 2xx, to a client inside the stack.",
    )


def cases(environment: Environment) -> Iterator[Case]:
    """Yield the cases."""
    success, duration, expiry = (
        f"probe_{metric}{{{PROBE}}}" for metric in ("success", "duration_seconds", "ssl_earliest_cert_expiry")
    )
    yield from pair(
        "ProbeFailed",
        titles=("for minutes", "while the ingress starts anew, which its own alert tells first"),
        fires={success: "1 0+0x9"},
        silent={success: "1 0+0x3 1+0x5"},
        minute=6,
        labels=AT | {"severity": "critical"},
        summary="https://example.org/health does not answer",
        description="It gives no answer, or another one than 2xx, to a client inside the stack.",
    )
    if by_family(environment):
        six = AT | {"family": "IPv6"}
        page = ",".join(f'{name}="{value}"' for name, value in six.items())
        yield from pair(
            "ProbeFailed",
            titles=("by IPv6 alone", "by IPv6 once"),
            fires={f"probe_success{{{page}}}": "1 0+0x9", success: "1+0x10"},
            silent={f"probe_success{{{page}}}": "1 0 1+0x9", success: "1+0x10"},
            minute=6,
            labels=six | {"severity": "critical"},
            summary="https://example.org/health does not answer by IPv6",
            description="It gives no answer, or another one than 2xx, to a client inside the stack.",
        )
        yield Case(
            alert="ProbeFailed",
            title="by IPv6, where the name has no AAAA record",
            series={f"probe_success{{{page}}}": "0+0x10", f"probe_ip_protocol{{{page}}}": "0+0x10", success: "1+0x10"},
            minute=6,
            fires=(),
        )
    for minute, told in ((14, ()), (22, (_down(AT),))):
        yield Case(
            alert="ProbeFailed",
            title=f"of a page that never answered, {minute} minutes after Prometheus began",
            series=HISTORY | {success: stays(0)},
            minute=minute,
            fires=told,
        )
    inside = AT | {"instance": "http://api:8000/ready", "service": "api"}
    page = ",".join(f'{name}="{value}"' for name, value in inside.items())
    yield from pair(
        "ProbeFailed",
        titles=("of a part for long", "of a part, which its own alerts tell first"),
        fires={f"probe_success{{{page}}}": "1 0+0x9"},
        silent={f"probe_success{{{page}}}": "1 0+0x3 1+0x5"},
        minute=6,
        labels=inside | {"severity": "critical"},
        summary="http://api:8000/ready does not answer",
        description="It gives no answer, or another one than 2xx, to a client inside the stack.",
    )
    yield from pair(
        "ProbeSlow",
        fires={duration: stays(3)},
        silent={duration: stays(2)},
        minute=25,
        labels=AT | {"severity": "warning"},
        summary="https://example.org/health answers slowly",
        description="A probe takes 3.0 s on average of ten minutes; the threshold is 2 s.",
    )

    def soon(left: str) -> tuple[Fires, ...]:
        return (
            Fires(
                labels=AT | {"severity": "warning"},
                summary="the certificate of https://example.org/health expires",
                description=f"{left} are left; the thresholds are 20 % of its life and 21 days.",
            ),
        )

    def very_soon(left: str) -> tuple[Fires, ...]:
        return (
            Fires(
                labels=AT | {"severity": "critical"},
                summary="the certificate of https://example.org/health is about to end",
                description=f"{left} are left, then browsers refuse it; "
                "the thresholds are 10 % of its life and 3 days.",
            ),
        )

    # The value is the time at which it ends, in seconds: what begins at 0 has that life. A sample each hour.
    month, half_day = stays(45 * DAY, 45 * 24), stays(12 * HOUR, 12)
    for title, values, hour, first, second in (
        ("45 days, an hour before Caddy renews it", month, 30 * 24 - 1, (), ()),
        ("45 days, not renewed", month, 37 * 24, soon("8d 0h 0m 0s"), ()),
        ("45 days, near its end: the worse one alone", month, 43 * 24, (), very_soon("2d 0h 0m 0s")),
        ("seen from the tenth day before its end on", stays(10 * DAY, 10 * 24), 36, soon("8d 12h 0m 0s"), ()),
        ("seen from the tenth day before its end on, when 9.5 are left", stays(10 * DAY, 10 * 24), 12, (), ()),
        ("seen from the eighth day before its end on", stays(8 * DAY, 8 * 24), 156, (), very_soon("1d 12h 0m 0s")),
        ("six days, or seen from the sixth day before its end on", stays(6 * DAY, 6 * 24), 96, (), ()),
        ("half a day, when Caddy renews it", half_day, 8, (), ()),
        ("half a day, not renewed", half_day, 12, (), very_soon("0s")),
        ("half a day, renewed each time", " ".join(stays((12 + n * 8) * HOUR, 7) for n in range(8)), 63, (), ()),
        # Of another life from the 20th hour on: what was left of the one before it says nothing of this one.
        ("90 days, then six", f"{stays(90 * DAY, 19)} {stays(20 * HOUR + 6 * DAY, 4 * 24)}", 20 + 95, (), ()),
        ("none is left", stays(0, 2), 2, (), very_soon("-2h 0m 0s")),
        ("two months", stays(60 * DAY, 24), 24, (), ()),
    ):
        for name, fires in (("TlsCertificateExpiresSoon", first), ("TlsCertificateExpiresVerySoon", second)):
            yield Case(alert=name, title=title, series={expiry: values}, minute=hour * 60, fires=fires, interval="1h")
    for name, fires in (("TlsCertificateExpiresSoon", soon("1h 20m 0s")), ("TlsCertificateExpiresVerySoon", ())):
        values, title = f"{12 * HOUR} _x4 " * 144, "half a day, and now and then it does not answer"
        yield Case(alert=name, title=title, series={expiry: values}, minute=640, fires=fires)
    reload = (
        'blackbox_exporter_config_last_reload_successful{job="blackbox-exporter",instance="blackbox-exporter:9115"}'
    )
    yield from pair(
        "BlackboxConfigReloadFailed",
        titles=("it failed", "it succeeded"),
        fires={reload: stays(0)},
        silent={reload: stays(1)},
        minute=15,
        labels={
            "job": "blackbox-exporter",
            "instance": "blackbox-exporter:9115",
            "service": "blackbox-exporter",
            "severity": "warning",
        },
        summary="the blackbox exporter refuses its configuration",
        description="It goes on with the one before, and ends at the next start.",
    )
