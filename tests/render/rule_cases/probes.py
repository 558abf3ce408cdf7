"""The probes' alerts."""

from __future__ import annotations

from collections.abc import Iterator

from stack.parts.blackbox_exporter.spec import by_family
from stack.settings.environment import Environment
from tests.render.rule_cases.model import Case, Fires, pair, stays

AT = {"job": "probe", "instance": "https://example.org/health", "service": "public"}
PROBE = ",".join(f'{name}="{value}"' for name, value in AT.items())
DAY = 86400


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
                description=f"{left} are left; the threshold is 21 days.",
            ),
        )

    def very_soon(left: str) -> tuple[Fires, ...]:
        return (
            Fires(
                labels=AT | {"severity": "critical"},
                summary="the certificate of https://example.org/health is about to end",
                description=f"{left} are left, then browsers refuse it; the threshold is 3 days.",
            ),
        )

    # The value is the time at which it ends, in seconds; it is looked at in minute 90.
    for title, values, first, second in (
        ("20 days", stays(20 * DAY, 120), soon("19d 22h 30m 0s"), ()),
        ("two days: the worse one alone", stays(2 * DAY, 120), (), very_soon("1d 22h 30m 0s")),
        ("none", stays(0, 120), (), very_soon("-1h 30m 0s")),
        ("two months", stays(60 * DAY, 120), (), ()),
        ("20 days, and now and then it does not answer", f"{20 * DAY} _x4 " * 24, soon("19d 22h 30m 0s"), ()),
    ):
        yield Case(alert="TlsCertificateExpiresSoon", title=title, series={expiry: values}, minute=90, fires=first)
        yield Case(alert="TlsCertificateExpiresVerySoon", title=title, series={expiry: values}, minute=90, fires=second)
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
