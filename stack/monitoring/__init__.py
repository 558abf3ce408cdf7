"""The monitoring parts, their rules and dashboards."""
