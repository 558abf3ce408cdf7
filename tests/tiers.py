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
    "the first commands of each runbook work": ("live/test_runbooks.py",),
    "the logs of all containers are searched in one place, without a secret": (
        "live/test_log_search.py::test_lines_of_each_part_are_found_within_seconds",
        "live/test_log_search.py::test_no_generated_secret_is_in_the_store",
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
        "live/test_updates.py::test_a_plain_destroy_is_refused_and_removes_no_volume",
        "live/test_updates.py::test_the_command_tells_a_wrong_configuration_before_anything_is_touched",
    ),
    "a new version is rolled out under load without a lost request": (
        "live/test_deploys.py::test_another_image_replaces_one_container_after_the_other_and_every_job_is_done_once",
    ),
    "a lost database is restored to its last moment": (
        "live/test_volume_lost.py::test_a_volume_that_is_gone_is_restored_to_its_last_moment_without_an_empty_database_between",
    ),
    "two commands never change an environment at once": ("live/test_lock.py",),
    "no job is lost when Redis ends": ("live/test_waiting_jobs.py", "render/test_redis_keeps.py"),
    "an application that was taken over gets no more rights": (
        "backup_image/test_rights.py",
        "live/test_rights.py",
        "render/test_postgres_rights.py",
    ),
    "drift is found": (
        "live/test_drift.py::test_an_environment_that_is_not_up_is_an_error_and_no_drift",
        "live/test_updates.py::test_drift_is_nothing_in_a_stack_as_it_was_made_and_finds_a_part_that_was_stopped_which_up_starts",
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

_SHORT = frozenset(name for names in SHORT.values() for name in names)


def is_short(file: str, test: str) -> bool:
    """Tell whether `make test` runs a test on a real engine: its file below `tests/`, its name without parameters."""
    return file in _SHORT or f"{file}::{test}" in _SHORT
