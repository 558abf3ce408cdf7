"""Health commands that work in the official images."""

from __future__ import annotations


def wget(port: int, path: str) -> tuple[str, ...]:
    """Ask with BusyBox' wget, which every monitoring image has."""
    return ("wget", "-q", "-O", "/dev/null", f"http://127.0.0.1:{port}{path}")


def python(port: int, path: str) -> tuple[str, ...]:
    """Ask with Python, which an image of the application has: it needs no curl. An error status ends with 1."""
    ask = f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}{path}', timeout=4)"
    return ("python", "-c", ask)
