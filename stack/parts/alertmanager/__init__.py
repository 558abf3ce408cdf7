"""AlertManager."""
