"""Headers that the entry sets and takes away, be it Caddy or a Traefik."""

from __future__ import annotations

BELIEVED_HEADERS = ("SCRIPT_NAME", "PATH_INFO")
"""What an older Gunicorn takes for the path itself, past our rules of paths, from whom FORWARDED_ALLOW_IPS names."""
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
HSTS_SECONDS = 31536000
