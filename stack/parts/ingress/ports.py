"""Ports of Caddy in its container."""

from __future__ import annotations

HTTP_PORT = 8000
HTTPS_PORT = 8443
INTERNAL_PORT = 8001
"""For the stack's own parts, whose X-Forwarded-For is trusted: the frontend calls the API on behalf of users."""
METRICS_PORT = 9180
PROBES_PORT = 9181
"""On the container's own loopback."""
