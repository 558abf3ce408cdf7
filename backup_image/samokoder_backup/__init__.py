"""The backup server of one environment: base backups and WAL by Barman, dumps, copies of Redis, restores, drills."""
