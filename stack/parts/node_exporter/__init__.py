"""node_exporter: the host."""
