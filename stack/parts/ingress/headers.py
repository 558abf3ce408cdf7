"""Headers that the ingress sets or removes, both with Caddy and with the team's Traefik."""

from __future__ import annotations

BELIEVED_HEADERS = ("SCRIPT_NAME", "PATH_INFO")
"""Headers that older Gunicorns accept from FORWARDED_ALLOW_IPS as the request's path, which bypasses our path rules."""
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
HSTS_SECONDS = 31536000
