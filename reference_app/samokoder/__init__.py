"""The reference service: behind `api` and `worker` when a team configures no image of its own.

This module stays free of imports, since the container health check starts it every few seconds.
"""

__version__ = "0.1.0"
