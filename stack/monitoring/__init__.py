"""The building blocks of alerts and dashboards: queries, panels, boards, severities."""
