"""The data of an environment: backups, restore, import and repair."""
