"""The blackbox exporter: probes."""
