"""The first page: what is up, what fires, and what Samokoder does: projects, logins, jobs, language models."""

from __future__ import annotations

from stack.monitoring.boards import Board, Row, board, choice, replicas
from stack.monitoring.panels import PER_SECOND, UP, Limit, Panel, Query, figure, lines, series, states
from stack.monitoring.promql import counted, grown, or_zero, quantile, ratio, total
from stack.settings.alerts import Alerts
from stack.settings.environment import Environment

UID = "samokoder-overview"
# While the API has no provider, it exposes series with provider="none".
LLM = 'provider=~"$provider",provider!="none"'
NO_CALLS = "no calls"
PROJECTS = "samokoder_projects_created_total"
CALLS = "samokoder_llm_requests_total"
FAILED_CALLS = "samokoder_llm_request_errors_total"
ERROR_TYPES = (
    "timeout",
    "connection",
    "rate_limited",
    "server_error",
    "client_error",
    "circuit_open",
    "bad_answer",
)
COST = "samokoder_llm_cost_usd_total"
HEARTBEAT_AGE = 'time() - max by (instance) (worker_heartbeat_timestamp_seconds{job="worker"})'


def describe(environment: Environment) -> Board:
    """Describe the dashboard."""
    alerts = environment.settings.alerts
    return board(
        environment,
        uid=UID,
        title="Overview",
        description="What is up, what fires, and what Samokoder does for its users.",
        choices=[
            choice(
                "provider",
                "LLM provider",
                "Providers of language models.",
                f'label_values({CALLS}{{provider!="none"}}, provider)',
            ),
        ],
        since="now-6h",
        everything=True,
        figures=_now(alerts),
        beside=_targets(environment),
        rows=[
            Row("State", _state(environment)),
            Row("Users", _users(alerts)),
            Row("Jobs", _jobs(alerts), _queue(alerts)),
            Row("Language models", _calls(alerts), _answers(alerts), _use(alerts)),
        ],
    )


def _now(alerts: Alerts) -> list[Panel]:
    return [
        figure(
            "Targets down",
            "Parts that Prometheus gets no metrics from.",
            "short",
            "count(up) - sum(up)",
            limits=[Limit(alert="TargetDown", value=1)],
            watched_by=["ApiDown", "WorkerDown"],
        ),
        figure(
            "Probes that fail",
            "Pages that do not answer as they should.",
            "short",
            "count(probe_success) - sum(probe_success)",
            limits=[Limit(alert="ProbeFailed", value=1, severity="critical")],
        ),
        figure(
            "Critical alerts",
            "Alerts that fire now and wake somebody.",
            "short",
            or_zero('count(ALERTS{alertstate="firing",severity="critical"})'),
            limits=[Limit(value=1, severity="critical")],
        ),
        figure(
            "Warnings",
            "Alerts for the working day that fire now.",
            "short",
            or_zero('count(ALERTS{alertstate="firing",severity="warning"})'),
            limits=[Limit(value=1)],
        ),
        figure(
            "Worker's heartbeat",
            "Time since the worker last had an answer from its queue; of several, the one that waits longest.",
            "s",
            f"max({HEARTBEAT_AGE})",
            limits=[_heartbeat()],
        ),
        figure(
            "Jobs that wait",
            "Jobs in the queue.",
            "short",
            'max(worker_queue_depth{job="worker"})',
            limits=[_backlog(alerts)],
        ),
        figure(
            "Projects in an hour",
            "Projects that were created in the last hour.",
            "short",
            counted("1h", PROJECTS),
            watched_by=["NoProjectsCreated"],
        ),
        figure(
            "Cost of an hour",
            "What the providers of language models took in the last hour.",
            "currencyUSD",
            or_zero(grown("1h", COST)),
            limits=[_cost(alerts)],
        ),
    ]


def _targets(environment: Environment) -> Panel:
    return states(
        "Targets",
        "Whether Prometheus gets metrics from every replica of each part, and an answer from every page.",
        [Query("min by (job) (up)", "{{job}}")],
        UP,
        watched_by=["TargetDown", "ApiDown", "WorkerDown"],
        bands=replicas(environment),
    )


def _state(environment: Environment) -> list[Panel]:
    return [
        states(
            "Probes",
            "Whether every page answers as it should, asked from outside its container.",
            [Query("min by (service) (probe_success)", "{{service}}")],
            UP,
            watched_by=["ProbeFailed"],
            bands=replicas(environment),
        ),
        lines(
            "Versions",
            "What runs, by the version that API and worker say they are.",
            "count by (job, version) (samokoder_build_info)",
            {"job": "part", "version": "version", "Value": "replicas"},
        ),
    ]


def _users(alerts: Alerts) -> list[Panel]:
    return [
        series(
            "Projects",
            "Projects created in an hour.",
            "short",
            Query(counted("1h", PROJECTS), "projects"),
            watched_by=["NoProjectsCreated"],
        ),
        series(
            "Logins",
            "Logins a second. Many failures at once: somebody guesses passwords.",
            PER_SECOND,
            *(
                Query(or_zero(total("samokoder_auth_attempts_total", f'result="{each}"')), each)
                for each in ("success", "failure")
            ),
            limits=[Limit(alert="AuthenticationFailureSpike", value=alerts.auth_failures_per_second)],
        ),
        series(
            "Rate limit",
            "Requests a second that were refused by the rate limit, and those that were judged without Redis, "
            "where each replica counts for itself.",
            "reqps",
            Query(or_zero(total("samokoder_rate_limit_hits_total")), "refused"),
            Query(or_zero(total("samokoder_rate_limit_unavailable_total")), "judged without Redis"),
            limits=[Limit(alert="RateLimitHitsHigh", value=alerts.rate_limit_hits_per_second, severity="info")],
            watched_by=["RateLimiterWithoutRedis"],
        ),
    ]


def _jobs(alerts: Alerts) -> list[Panel]:
    failed = total("worker_jobs_total", 'job="worker",status="failed"', window="15m")
    return [
        series(
            "Jobs",
            "Jobs a second: given to the queue by the API, and ended by the worker.",
            "ops",
            Query(or_zero(total("samokoder_jobs_submitted_total")), "submitted"),
            *(
                Query(or_zero(total("worker_jobs_total", f'job="worker",status="{each}"')), each)
                for each in ("complete", "retried", "failed")
            ),
            Query(or_zero(total("samokoder_jobs_not_queued_total")), "not queued"),
            watched_by=["WorkerQueueStalled"],
        ),
        series(
            "Jobs that fail",
            "Share of the jobs of the last 15 minutes that failed.",
            "percentunit",
            Query(f'({or_zero(failed)}) / (sum(rate(worker_jobs_total{{job="worker"}}[15m])) > 0)', "failed"),
            limits=[Limit(alert="WorkerJobFailureRatioHigh", value=ratio(alerts.worker_failed_percent))],
        ),
        series(
            "Duration of jobs",
            "Time within which 50 and 95 of 100 jobs of a kind are done.",
            "s",
            *(
                Query(quantile(part, "samokoder_job_duration_seconds", by="name"), f"{{{{name}}}} p{part * 100:g}")
                for part in (0.5, 0.95)
            ),
        ),
    ]


def _queue(alerts: Alerts) -> list[Panel]:
    return [
        series(
            "Queue",
            "Jobs that wait. The alert needs more than this and growth.",
            "short",
            Query('max(worker_queue_depth{job="worker"})', "jobs"),
            limits=[_backlog(alerts)],
            watched_by=["WorkerQueueStalled"],
        ),
        series(
            "Age of the oldest job",
            "How long the oldest job has waited for a worker.",
            "s",
            Query('max(worker_queue_oldest_job_age_seconds{job="worker"})', "oldest job"),
            limits=[
                Limit(alert="WorkerQueueOldestJobTooOld", value=alerts.worker_oldest_job_seconds, severity="critical")
            ],
        ),
        series(
            "Heartbeats",
            "Time since each worker last had an answer from its queue.",
            "s",
            Query(HEARTBEAT_AGE, "{{instance}}"),
            limits=[_heartbeat()],
        ),
    ]


def _calls(alerts: Alerts) -> list[Panel]:
    failed = f"{total(FAILED_CALLS, LLM, 'provider', '10m')} or 0 * {total(CALLS, LLM, 'provider', '10m')}"
    return [
        series(
            "Calls",
            "Calls of language models a second.",
            "reqps",
            Query(total(CALLS, LLM, "provider, model"), "{{provider}} {{model}}"),
            stacked=True,
            absent=NO_CALLS,
        ),
        series(
            "Calls that fail",
            "Share of the calls of the last ten minutes that failed, by provider.",
            "percentunit",
            Query(f"({failed}) / ({total(CALLS, LLM, 'provider', '10m')} > 0)", "{{provider}}"),
            limits=[Limit(alert="LlmErrorRateHigh", value=ratio(alerts.llm_error_percent))],
            absent=NO_CALLS,
        ),
        series(
            "Errors by kind",
            "Failed calls a second by what went wrong.",
            PER_SECOND,
            Query(or_zero(total(FAILED_CALLS, LLM)), "all"),
            *(
                Query(or_zero(total(FAILED_CALLS, f'{LLM},error_type="{kind}"')), kind.replace("_", " "))
                for kind in ERROR_TYPES
            ),
            watched_by=["LlmErrorRateHigh"],
        ),
    ]


def _answers(alerts: Alerts) -> list[Panel]:
    return [
        series(
            "Latency of the providers",
            "Time within which 95 of 100 calls of the last ten minutes were answered.",
            "s",
            Query(quantile(0.95, "samokoder_llm_request_duration_seconds", LLM, "provider", "10m"), "{{provider}}"),
            limits=[Limit(alert="LlmLatencyHigh", value=alerts.llm_p95_seconds)],
            absent=NO_CALLS,
        ),
        series(
            "Calls in flight",
            "Calls that wait for an answer.",
            "short",
            Query(f"sum by (provider) (samokoder_llm_requests_in_flight{{{LLM}}})", "{{provider}}"),
            absent=NO_CALLS,
        ),
        states(
            "Circuit breaker",
            "Open: so many calls failed that the provider is not called any more, and whoever needs it gets an error.",
            [Query(f"max by (provider) (samokoder_llm_circuit_open{{{LLM}}})", "{{provider}}")],
            {0: ("closed", "green"), 1: ("open", "red")},
            watched_by=["LlmCircuitOpen"],
            absent=NO_CALLS,
        ),
    ]


def _use(alerts: Alerts) -> list[Panel]:
    return [
        series(
            "Tokens",
            "Tokens a second: what is asked and what is answered.",
            PER_SECOND,
            Query(total("samokoder_llm_tokens_consumed_total", LLM, "model, token_type"), "{{model}} {{token_type}}"),
            stacked=True,
            absent=NO_CALLS,
        ),
        series(
            "Cost",
            "US dollars in an hour. The line is for the sum of all providers.",
            "currencyUSD",
            Query(or_zero(grown("1h", COST)), "all"),
            Query(grown("1h", COST, LLM, "provider, model"), "{{provider}} {{model}}"),
            limits=[_cost(alerts)],
        ),
        series(
            "Cost of a call",
            "US dollars for a call, mean of an hour.",
            "currencyUSD",
            Query(
                f"{total(COST, LLM, 'provider, model', '1h')} / ({total(CALLS, LLM, 'provider, model', '1h')} > 0)",
                "{{provider}} {{model}}",
            ),
            absent=NO_CALLS,
        ),
    ]


def _heartbeat() -> Limit:
    return Limit(alert="WorkerHeartbeatStale", value=120, severity="critical")


def _backlog(alerts: Alerts) -> Limit:
    return Limit(alert="WorkerQueueBacklogGrowing", value=alerts.worker_queue_jobs)


def _cost(alerts: Alerts) -> Limit:
    return Limit(alert="LlmCostSpike", value=alerts.llm_cost_usd_per_hour)
