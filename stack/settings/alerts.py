"""Settings of the alerts: the thresholds at which they fire."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from stack.common.names import LATENCY_BUCKETS
from stack.settings.types import Model

PercentOf = Annotated[float, Field(gt=0, lt=100)]
PositiveNumber = Annotated[float, Field(gt=0, le=1e9)]


def _bucket(value: float) -> float:
    # A histogram counts slower requests only at the borders of its buckets.
    if value not in LATENCY_BUCKETS:
        raise ValueError(f"not a bucket of the API's histogram: {', '.join(f'{each:g}' for each in LATENCY_BUCKETS)}")
    return value


LatencySeconds = Annotated[float, AfterValidator(_bucket)]


class Alerts(Model):
    """The thresholds at which alerts fire. Names contain the unit; the dashboards draw lines at the same values."""

    runbooks_url: str = Field(
        "https://github.com/samokoder/samokoder-platform/blob/main/docs/runbooks",
        pattern=r"^https?://[^\s]*[^\s/]$",
        description="Where the pages of docs/runbooks are; each alert links to <runbooksUrl>/<alert>.md.",
        examples=["https://git.example.org/team/samokoder-platform/src/branch/main/docs/runbooks"],
    )
    wait_factor: float = Field(
        1.0,
        gt=0,
        le=10,
        description="Every alert's `for` is multiplied by it, and alerts stay the shorter; below 1 to try alerts out.",
        examples=[0.1],
    )
    api_availability_percent: PercentOf = Field(
        99.9, description="Objective: so many of 100 requests do not end with a 5xx, in %.", examples=[99.5]
    )
    api_fast_percent: PercentOf = Field(
        99.0,
        description="Objective: so many of 100 requests are answered within apiFastSeconds, in %.",
        examples=[95.0],
    )
    api_fast_seconds: LatencySeconds = Field(
        0.5, description="What counts as a fast answer, in seconds: a bucket of the API's histogram.", examples=[1.0]
    )
    api_burn_requests: PositiveNumber = Field(
        5.0,
        description="Least number of bad requests in the long window of a burn rate: one in a quiet hour wakes nobody.",
        examples=[20.0],
    )
    api_error_percent: PercentOf = Field(
        5.0, description="ApiErrorRateHigh: 5xx answers of all in five minutes, in %.", examples=[2.0]
    )
    api_p95_seconds: PositiveNumber = Field(
        2.0, description="ApiLatencyHigh: 95th percentile of the answers, in seconds.", examples=[5.0]
    )
    api_requests_in_progress: PositiveNumber = Field(
        100.0, description="ApiRequestsPilingUp: requests being answered at once.", examples=[200.0]
    )
    rate_limit_hits_per_second: PositiveNumber = Field(
        10.0, description="RateLimitHitsHigh: answers 429 a second.", examples=[5.0]
    )
    auth_failures_per_second: PositiveNumber = Field(
        10.0, description="AuthenticationFailureSpike: failed logins a second.", examples=[1.0]
    )
    projects_expected_above_requests_per_second: PositiveNumber = Field(
        0.1,
        description="NoProjectsCreated: with more requests than so many a second, projects are expected.",
        examples=[1.0],
    )
    database_errors_per_second: PositiveNumber = Field(
        1.0, description="DatabaseErrors: errors of API and worker at the database a second.", examples=[0.1]
    )
    database_query_p95_seconds: PositiveNumber = Field(
        1.0, description="SlowDatabaseQueries: 95th percentile of the statements, in seconds.", examples=[0.5]
    )
    llm_error_percent: PercentOf = Field(
        10.0, description="LlmErrorRateHigh: failed calls of a provider in ten minutes, in %.", examples=[5.0]
    )
    llm_p95_seconds: PositiveNumber = Field(
        30.0, description="LlmLatencyHigh: 95th percentile of a provider's answers, in seconds.", examples=[60.0]
    )
    llm_cost_usd_per_hour: PositiveNumber = Field(
        10.0, description="LlmCostSpike: cost of the last hour, in US dollars.", examples=[50.0]
    )
    worker_oldest_job_seconds: PositiveNumber = Field(
        300.0, description="WorkerQueueOldestJobTooOld: age of the oldest waiting job, in seconds.", examples=[600.0]
    )
    worker_queue_jobs: PositiveNumber = Field(
        100.0, description="WorkerQueueBacklogGrowing: waiting jobs.", examples=[500.0]
    )
    worker_failed_percent: PercentOf = Field(
        5.0, description="WorkerJobFailureRatioHigh: failed jobs in fifteen minutes, in %.", examples=[10.0]
    )
    postgres_connections_percent: PercentOf = Field(
        80.0, description="PostgresConnectionsHigh: used connections, in %.", examples=[70.0]
    )
    postgres_transaction_seconds: PositiveNumber = Field(
        600.0, description="PostgresLongTransaction: age of the oldest transaction, in seconds.", examples=[3600.0]
    )
    postgres_cache_hit_percent: PercentOf = Field(
        95.0, description="PostgresCacheHitRatioLow: blocks found in memory, in %.", examples=[90.0]
    )
    redis_memory_percent: PercentOf = Field(
        85.0, description="RedisMemoryHigh: memory used of maxmemory, in %.", examples=[75.0]
    )
    redis_snapshot_hours: PositiveNumber = Field(
        24.0,
        description="RedisSnapshotOld: age of the last snapshot while there are changes, in hours.",
        examples=[6.0],
    )
    container_memory_percent: PercentOf = Field(
        90.0, description="ContainerMemoryNearLimit: memory used of the limit, in %.", examples=[95.0]
    )
    container_throttled_percent: PercentOf = Field(
        25.0, description="ContainerCpuThrottled: periods in which the CPU limit held it back, in %.", examples=[50.0]
    )
    host_cpu_percent: PercentOf = Field(80.0, description="HostCpuHigh: busy CPU, in %.", examples=[90.0])
    host_memory_available_percent: PercentOf = Field(
        10.0, description="HostMemoryLow: memory left, in %.", examples=[5.0]
    )
    disk_low_percent: PercentOf = Field(10.0, description="HostDiskLow: space left, in %.", examples=[15.0])
    disk_almost_full_percent: PercentOf = Field(
        5.0, description="HostDiskAlmostFull: space left, in %; less than diskLowPercent.", examples=[3.0]
    )
    backup_late_hours: PositiveNumber = Field(
        2.0,
        description="BackupTooOld, BackupVerificationTooOld: so many hours beyond the longest pause of the schedule; "
        "critical one missed backup later.",
        examples=[4.0],
    )
    backup_shrank_percent: PercentOf = Field(
        50.0,
        description="BackupShrank: so much smaller than the median of seven days, in %.",
        examples=[30.0],
    )
    backup_slot_percent: float = Field(
        50.0,
        gt=0,
        lt=80,
        description="BackupSlotGrowing: write-ahead log that waits for the backup server, of what PostgreSQL keeps, "
        "in %; critical from 80 on.",
        examples=[40.0],
    )
    wal_lag_seconds: float = Field(
        60.0,
        gt=0,
        lt=900,
        description="WalArchiveLagging: age of the oldest change that the backup server has not, in seconds; critical "
        "from 900 on.",
        examples=[120.0],
    )
    restore_drill_days: PositiveNumber = Field(
        8.0, description="RestoreDrillTooOld: since a backup was last restored and looked at, in days.", examples=[15.0]
    )
    backup_offsite_hours: PositiveNumber = Field(
        6.0, description="BackupOffsiteStale: since the last copy reached the bucket, in hours.", examples=[12.0]
    )
    backup_volume_free_percent: PercentOf = Field(
        15.0, description="BackupVolumeAlmostFull: space left where the backups are, in %.", examples=[20.0]
    )
    log_tracebacks: PositiveNumber = Field(
        5.0, description="LogTracebacks: tracebacks that a part logs in ten minutes.", examples=[1.0]
    )
    postgres_fatal_lines: PositiveNumber = Field(
        5.0, description="PostgresFatalLogged: lines with FATAL in ten minutes.", examples=[20.0]
    )
    postgres_refused_logins: PositiveNumber = Field(
        10.0, description="PostgresLoginsRefused: refused logins in ten minutes.", examples=[3.0]
    )
    prometheus_series: PositiveNumber = Field(
        30000.0, description="PrometheusTooManySeries: series in memory.", examples=[100000.0]
    )
    probe_seconds: PositiveNumber = Field(
        2.0, description="ProbeSlow: mean duration of a probe, in seconds.", examples=[5.0]
    )
    tls_expires_days: PositiveNumber = Field(
        21.0, description="TlsCertificateExpiresSoon: days left; it needs tlsExpiresPercent too.", examples=[14.0]
    )
    # Caddy renews at 33 %. Traefik, told of 45 days, renews 10 days before the end, which is 22 %.
    tls_expires_percent: PercentOf = Field(
        20.0,
        description="TlsCertificateExpiresSoon: left of the certificate's life, in %; it needs tlsExpiresDays too.",
        examples=[15.0],
    )
    tls_expires_very_soon_days: PositiveNumber = Field(
        3.0,
        description="TlsCertificateExpiresVerySoon: days left; less than tlsExpiresDays; it needs "
        "tlsExpiresVerySoonPercent too.",
        examples=[2.0],
    )
    tls_expires_very_soon_percent: PercentOf = Field(
        10.0,
        description="TlsCertificateExpiresVerySoon: left of the certificate's life, in %; less than tlsExpiresPercent; "
        "it needs tlsExpiresVerySoonDays too.",
        examples=[5.0],
    )
