"""Redis, its users and its exporter."""
