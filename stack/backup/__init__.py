"""The backups."""
