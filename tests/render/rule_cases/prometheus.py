"""The alerts on Prometheus and its targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import ceil

from stack.parts.prometheus.rules import OWN_ALERT
from stack.settings.environment import Environment
from stack.settings.types import seconds
from tests.described import specs
from tests.render.rule_cases.model import Case, Fires, Series, grows, pair, stays

AT = {"job": "prometheus", "instance": "prometheus:9090"}
SELF = ",".join(f'{name}="{value}"' for name, value in AT.items())
CRITICAL = {"service": "prometheus", "severity": "critical"}
WARNING = {"service": "prometheus", "severity": "warning"}
INFO = {"service": "prometheus", "severity": "info"}
GROUP = {"rule_group": "/etc/samokoder/rules/samokoder.yml;api"}


def _is(labels: str = "", **values: str) -> Series:
    return {f"prometheus_{name}{{{SELF}{labels}}}": value for name, value in values.items()}


def cases(environment: Environment) -> Iterator[Case]:
    """Yield the cases."""
    yield Case(
        alert="Watchdog",
        title="always",
        series={},
        minute=1,
        fires=(_beats(),),
    )
    yield from _ways_that_fail(environment)
    yield from _targets(environment)
    yield from _rules()
    yield from _storage()
    yield from _notifications()


def _ways_that_fail(environment: Environment) -> Iterator[Case]:
    """Yield the cases in which some ways to people fail: where none works, the heart that is watched outside stops."""
    ways = environment.alert_ways

    def tried(lost: dict[str, float], minutes: int = 60) -> Series:
        series: Series = {}
        for way in ways:
            labels = f'job="alertmanager",instance="a:1",integration="{way}",receiver_name="on-call"'
            series[f"alertmanager_notifications_total{{{labels}}}"] = grows(float(way in lost), minutes)
            failed = f'alertmanager_notifications_failed_total{{{labels},reason="clientError"}}'
            series[failed] = grows(lost.get(way, 0), minutes)
        return series

    def case(title: str, series: Series, *, beats: bool = True) -> Case:
        return Case(alert="Watchdog", title=title, series=series, minute=30, fires=(_beats(),) if beats else ())

    if not ways:
        return
    yield case("each way loses most", tried(dict.fromkeys(ways, 0.8)), beats=False)
    # The service outside notices only what is away for longer than it waits for a beat.
    two_beats = ceil(2 * seconds(environment.settings.alertmanager.heartbeat_interval) / 60)
    ended = {name: f"{values} 20+0x{two_beats}" for name, values in tried(dict.fromkeys(ways, 1.0), 20).items()}
    yield replace(case("each way lost all for 20 minutes, two beats ago", ended, beats=False), minute=20 + two_beats)
    for way in ways:
        yield case(f"{way} alone loses few, and others most", tried({**dict.fromkeys(ways, 0.8), way: 0.2}))
        if len(ways) > 1:
            untried = {each: 0.8 for each in ways if each != way}
            yield case(f"{way} was not tried, and others lose most", tried(untried))


def _beats() -> Fires:
    return Fires(
        labels={"service": "prometheus", "severity": "none"},
        summary="the chain of alerts works",
        description="Always firing: when it stops arriving, nothing else would arrive either.",
    )


def _targets(environment: Environment) -> Iterator[Case]:
    jobs = sorted({spec.job for spec in specs(environment) if spec.job} - OWN_ALERT)
    up = {f'up{{job="{job}",instance="{job}:1"}}': stays(1) for job in jobs}

    def down(job: str, labels: dict[str, str]) -> Fires:
        return Fires(
            labels={"job": job, "service": job, "severity": "warning"} | labels,
            summary=f"{job} cannot be scraped",
            description=f"Prometheus gets no metrics from {job}: it is down, or out of reach.",
        )

    yield Case(alert="TargetDown", title="every target is up", series=up, minute=10)
    for job in jobs:
        series = f'up{{job="{job}",instance="{job}:1"}}'
        gone = {name: values for name, values in up.items() if name != series}
        fires = (down(job, {"instance": f"{job}:1"}),)
        yield Case(alert="TargetDown", title=f"{job} is down", series=up | {series: "1 0+0x9"}, minute=8, fires=fires)
        yield Case(
            alert="TargetDown", title=f"{job} is no target any more", series=gone, minute=22, fires=(down(job, {}),)
        )
        first = up | {series: "0+0x30"}
        yield Case(alert="TargetDown", title=f"a first up has not made {job} yet", series=first, minute=14)
    missed = up | {f'up{{job="{jobs[0]}",instance="{jobs[0]}:1"}}': "1 0 1+0x8"}
    yield Case(alert="TargetDown", title="one scrape was missed", series=missed, minute=8)


def _rules() -> Iterator[Case]:
    yield from pair(
        "PrometheusConfigReloadFailed",
        titles=("it failed", "it failed once, then succeeded"),
        fires=_is(config_last_reload_successful="1 0+0x40"),
        silent=_is(config_last_reload_successful="1 0+0x10 1+0x40"),
        minute=20,
        labels=CRITICAL | AT,
        summary="Prometheus refuses its configuration",
        description="It goes on with the one before, and ends at the next start.",
    )
    group = f',rule_group="{GROUP["rule_group"]}"'
    yield from pair(
        "PrometheusRuleFailures",
        titles=("one a minute", "none any more"),
        fires=_is(group, rule_evaluation_failures_total=grows(1)),
        silent=_is(group, rule_evaluation_failures_total=stays(7)),
        minute=25,
        labels=CRITICAL | GROUP,
        summary="rules cannot be evaluated",
        description=f"Failures within five minutes in {GROUP['rule_group']}: 5; alerts may be missing.",
    )
    yield from pair(
        "PrometheusRuleGroupSlow",
        titles=("two a minute", "none any more"),
        fires=_is(group, rule_group_iterations_missed_total=grows(2)),
        silent=_is(group, rule_group_iterations_missed_total=stays(7)),
        minute=20,
        labels=WARNING | GROUP,
        summary="rules take too long",
        description=f"Evaluations left out within five minutes in {GROUP['rule_group']}: 10.",
    )


def _storage() -> Iterator[Case]:
    up = {f"up{{{SELF}}}": "1+0x60"}
    samples = [
        up | _is(f',type="{kind}"', tsdb_head_samples_appended_total=stays(5)) for kind in ("float", "histogram")
    ]
    yield from pair(
        "PrometheusNotIngesting",
        titles=("nothing of either kind", "one kind is enough"),
        fires=dict(samples[0]) | dict(samples[1]),
        silent=samples[1] | dict.fromkeys(samples[0].keys() - up.keys(), grows(100)),
        minute=20,
        labels=CRITICAL | AT,
        summary="Prometheus stores nothing",
        description="No new sample is stored, so no other alert sees what happens now.",
    )
    yield from pair(
        "PrometheusNotIngesting",
        titles=("nothing is stored since minute 10", "one target is"),
        fires=dict.fromkeys(samples[0] | samples[1], "0+100x10"),
        silent=up | dict.fromkeys(samples[0].keys() - up.keys(), "0+100x10"),
        minute=15,
        labels=CRITICAL | {"series": "gone"},
        summary="Prometheus stores nothing",
        description="No new sample is stored, so no other alert sees what happens now.",
    )
    for failure in ("compactions_failed", "reloads_failures", "wal_corruptions", "wal_writes_failed"):
        yield from pair(
            "PrometheusTsdbFailing",
            titles=(f"{failure}: two", f"{failure}: none any more"),
            fires=_is(**{f"tsdb_{failure}_total": "0x5 2x60"}),
            silent=_is(**{f"tsdb_{failure}_total": stays(2)}),
            minute=25,
            labels=WARNING | AT,
            summary="Prometheus cannot keep its data",
            description="Errors within three hours while it wrote or read its blocks or its log: 2.",
        )
    yield from pair(
        "PrometheusSampleLimitHit",
        titles=("four a minute", "none any more"),
        fires=_is(target_scrapes_exceeded_sample_limit_total=grows(4)),
        silent=_is(target_scrapes_exceeded_sample_limit_total=stays(4)),
        minute=15,
        labels=WARNING | AT,
        summary="a target has too many series",
        description="Scrapes thrown away within five minutes because of the sample limit: 20.",
    )
    yield from pair(
        "PrometheusTooManySeries",
        fires=_is(tsdb_head_series=stays(31000)),
        silent=_is(tsdb_head_series=stays(30000)),
        minute=20,
        labels=WARNING | AT,
        summary="Prometheus has too many series",
        description="31000 series are in memory; the threshold is 30000.",
    )
    started = f"process_start_time_seconds{{{SELF}}}"
    yield from pair(
        "PrometheusRestarted",
        titles=("after a minute away", "another part was"),
        fires={started: "10+0x8 _ 600+0x20"},
        silent={started: stays(10), 'process_start_time_seconds{job="api"}': "10+0x8 _ 600+0x20"},
        minute=12,
        labels=INFO | AT,
        summary="Prometheus was restarted",
        description="Restarts within ten minutes: 1; nothing was measured meanwhile.",
    )


def _notifications() -> Iterator[Case]:
    yield from pair(
        "PrometheusNotConnectedToAlertmanager",
        titles=("none", "one"),
        fires=_is(notifications_alertmanagers_discovered=stays(0)),
        silent=_is(notifications_alertmanagers_discovered=stays(1)),
        minute=20,
        labels=CRITICAL | AT,
        summary="Prometheus knows no AlertManager",
        description="In its configuration: 0; no alert leaves it.",
    )
    address = "http://alertmanager:9093/api/v2/alerts"

    def alerts(errors: float, sent: float) -> Series:
        to = f',alertmanager="{address}"'
        return _is(to, notifications_errors_total=grows(errors), notifications_sent_total=grows(sent))

    def case(title: str, series: Series, share: str = "") -> Case:
        fires = Fires(
            labels=WARNING | {"alertmanager": address},
            summary="alerts do not reach AlertManager",
            description=f"{share} of the alerts for {address} were lost.",
        )
        return Case(
            alert="PrometheusErrorSendingAlerts", title=title, series=series, minute=25, fires=(fires,) if share else ()
        )

    yield case("a tenth is lost", alerts(1, 9), "10%")
    yield case("all of them are lost, and none is counted as sent", alerts(1, 0), "100%")
    yield case("all arrive", alerts(0, 9))
    yield case("there are none", alerts(0, 0))
