"""PostgreSQL, its roles and its exporter."""
