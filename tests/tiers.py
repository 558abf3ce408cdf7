"""Which tests on a real engine `make test` runs. All others are marked `long`: `make test-all` and each night run them.

`make test` proves what README promises, in minutes. What breaks a stack of its own, loads it for long, tries many
versions or another host, or looks at one part of the reference application, is long.
"""

from __future__ import annotations

from collections.abc import Mapping

#: What README promises -> the files below `tests/`, or the tests in them, that prove it on a real engine.
SHORT: Mapping[str, tuple[str, ...]] = {
    "what README tells a newcomer to type works": (
        "live/test_readme.py::test_every_command_of_readme_does_what_it_says",
        "live/test_readme.py::test_bad_usage_ends_with_2_and_a_failure_with_1_and_both_say_what_to_do",
        "live/test_readme.py::test_production_is_set_up_by_the_lines_of_readme",
        "live/test_readme.py::test_plain_pulumi_previews_the_whole_stack_without_make",
        "live/test_readme.py::test_a_plain_preview_tells_every_mistake",
    ),
    "each part is healthy, each target is up, no secret can be read": ("live/test_the_stack.py",),
    "the application is reached through the ingress alone": ("live/test_ingress.py",),
    "each rule and each dashboard has its series": (
        "live/test_traffic.py::test_every_metric_that_a_rule_names_is_exposed",
        "live/test_traffic.py::test_every_question_of_every_dashboard_is_answered",
    ),
    "the logs of all containers are searched in one place, without a secret": (
        "live/test_log_search.py::test_lines_of_each_part_are_found_within_seconds",
        "live/test_log_search.py::test_no_generated_secret_is_in_the_store",
        "live/test_log_search.py::test_nothing_that_a_user_or_the_smoke_test_sent_is_in_a_log",
    ),
    "what runs is hardened": (
        "live/test_hardening.py::test_nothing_that_runs_breaks_a_rule_that_is_not_listed",
        "live/test_hardening.py::test_who_is_in_a_container_as_root_is_found",
        "live/test_hardening.py::test_an_environment_that_is_not_up_is_an_error_and_no_pass",
    ),
    "smoke finds each fault": ("live/test_smoke.py",),
    "an alert arrives": (
        "live/test_alerts.py::test_pages_with_a_password_let_nobody_in_without_it",
        "live/test_alerts.py::test_all_targets_and_probes_are_up_with_passwords_on",
        "live/test_alerts.py::test_the_watchdog_beats_at_the_heartbeat_and_nowhere_else",
        "live/test_alerts.py::test_a_test_alert_goes_every_way_and_the_command_tells_so",
    ),
    "an update changes its own part only, and down keeps the data": (
        "live/test_updates.py::test_a_second_up_changes_nothing_also_after_a_refresh",
        "live/test_updates.py::test_a_changed_prometheus_setting_replaces_prometheus_only",
        "live/test_updates.py::test_down_then_up_keeps_the_data_and_the_secrets",
        "live/test_updates.py::test_the_command_tells_a_wrong_configuration_before_anything_is_touched",
    ),
    "a new version is rolled out under load without a lost request": (
        "live/test_deploys.py::test_another_image_replaces_one_container_after_the_other_and_every_job_is_done_once",
    ),
    "a lost database is restored to its last moment": (
        "live/test_volume_lost.py::test_a_volume_that_is_gone_is_restored_to_its_last_moment_without_an_empty_database_between",
    ),
    "two commands never change an environment at once": ("live/test_lock.py",),
    "no job is lost when Redis ends": ("live/test_waiting_jobs.py",),
    "an application that was taken over gets no more rights": (
        "backup_image/test_rights.py",
        "live/test_rights.py",
        "render/test_postgres_rights.py",
    ),
    "drift is found": (
        "live/test_drift.py::test_an_environment_that_is_not_up_is_an_error_and_no_drift",
        "live/test_readme.py::test_every_command_of_readme_does_what_it_says",
        "live/test_updates.py::test_drift_finds_a_part_that_was_stopped_which_up_starts",
    ),
    "the API keeps its contract and its limits": (
        "reference_app/test_api.py",
        "reference_app/test_rate_limits.py",
        "reference_app/test_requirements.py",
    ),
    "the real programs read each rendered file": (
        "render/test_alertmanager.py",
        "render/test_blackbox.py",
        "render/test_dashboards.py",
        "render/test_ingress.py",
        "render/test_messages.py",
        "render/test_postgres.py",
        "render/test_prometheus.py",
        "render/test_redis.py",
    ),
}

#: Tests of files that are listed whole which are long all the same: with more waiting than the rest of their file.
LONG = (
    "reference_app/test_rate_limits.py::test_a_login_waits_for_a_redis_that_is_slow",
    "reference_app/test_rate_limits.py::test_a_redis_that_hangs_does_not_hang_the_api",
    "reference_app/test_rate_limits.py::test_a_script_that_asks_again_after_retry_after_gets_through",
    "reference_app/test_rate_limits.py::test_no_key_outlives_its_window",
    "reference_app/test_rate_limits.py::test_the_window_slides",
    "reference_app/test_rate_limits.py::test_without_redis_reads_pass_and_logins_do_not",
    "render/test_ingress.py::test_a_replica_that_goes_and_comes_back_costs_no_request_and_waits_until_it_is_steady",
    "render/test_ingress.py::test_a_replica_that_recovers_for_a_moment_again_and_again_is_never_let_in",
    "render/test_ingress.py::test_a_slow_replica_gets_no_request_while_another_one_is_well",
    "render/test_ingress.py::test_a_slow_replica_serves_where_the_other_one_is_ill",
    "render/test_ingress.py::test_the_same_certificate_is_shown_after_a_restart_and_after_sigkill",
    "render/test_ingress.py::test_where_all_replicas_are_slow_they_serve",
    "render/test_ingress.py::test_where_every_replica_answers_its_health_with_an_error_they_serve",
    "render/test_ingress.py::test_with_a_domain_a_certificate_is_fetched_kept_and_used",
    "render/test_postgres.py::test_a_rotation_finds_out_which_password_the_server_takes",
    "render/test_postgres.py::test_both_logins_are_good_in_the_middle_of_a_rotation_and_one_at_its_end",
    "render/test_postgres.py::test_postgresql_stops_without_a_recovery_at_the_next_start",
    "render/test_postgres.py::test_postgresql_takes_the_file_of_every_size_of_host",
    "render/test_postgres.py::test_the_workers_of_a_large_parallel_hash_join_have_room_to_share_it",
    "render/test_postgres.py::test_what_an_adopted_database_has_becomes_the_applications",
    "render/test_prometheus.py::test_a_clock_that_was_set_back_is_told_and_an_ordinary_day_or_a_boot_is_not",
    "render/test_prometheus.py::test_promtool_refuses_a_case_that_expects_what_does_not_happen",
    "render/test_redis.py::test_a_full_redis_refuses_a_write_and_keeps_every_job",
    "render/test_redis.py::test_a_rotation_finds_out_which_password_the_server_takes",
    "render/test_redis.py::test_a_session_of_a_withdrawn_password_ends_with_it_and_those_of_other_users_stay",
    "render/test_redis.py::test_both_passwords_are_good_in_the_middle_of_a_rotation_and_no_connection_ends",
)

_SHORT = frozenset(name for names in SHORT.values() for name in names)
_FILES = frozenset(name.partition("::")[0] for name in _SHORT)


def is_short(file: str, test: str) -> bool:
    """Tell whether `make test` runs a test on a real engine: its file below `tests/`, its name without parameters."""
    name = f"{file}::{test}"
    return name in _SHORT or (file in _SHORT and name not in LONG)


def asks_for_none_of(file: str, marks: str) -> bool:
    """Tell whether a run of tests on an engine has none of this file, which is long. marks: what pytest gets as -m."""
    words = marks.split(" and ")
    return words[0] in {"live", "deploy"} and "not long" in words and file not in _FILES
