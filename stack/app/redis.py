"""Redis 7: queue and cache, in the network `data` alone and published nowhere."""

from __future__ import annotations

import hashlib

from stack.config_files import Files, Template
from stack.names import NetworkName
from stack.service import DataVolume, NotScraped, ServiceSpec
from stack.settings import Environment

PART = "redis"
PORT = 6379
APP_USER = "samokoder_app"
EXPORTER_USER = "samokoder_monitoring"


def spec(environment: Environment) -> ServiceSpec:
    """Describe the server."""
    settings = environment.settings.redis
    return ServiceSpec(
        part=PART,
        component="samokoder:app:Redis",
        image=environment.image("redis"),
        user="999:999",
        settings=settings,
        command=("redis-server", "/etc/samokoder/redis.conf"),
        files=files(environment),
        data=DataVolume(name="redis", path="/data", adopt=settings.adopt_volume),
        # -e: without it redis-cli ends with 0 although the answer is an error, as while it loads its file.
        health_command=("redis-cli", "-e", "ping"),
        networks=(NetworkName.DATA,),
        scrape=NotScraped(reason="speaks no HTTP: redis-exporter measures it"),
        open_files=10240,
    )


def files(environment: Environment) -> Files:
    """Return the configuration and the users."""
    return {
        "redis.conf": redis_conf(environment.settings.redis.maxmemory_mib),
        "users.acl": Template(("redis_app", "redis_exporter"), users_acl),
    }


def redis_conf(maxmemory_mib: int) -> str:
    """Render redis.conf."""
    return f"""\
# Rendered by stack/app/redis.py.
bind 0.0.0.0
port {PORT}
# Passwords and the network guard it; protected mode would refuse every other container.
protected-mode no
dir /data
aclfile /etc/samokoder/users.acl
appendonly yes
appendfsync everysec
save 3600 1 300 100 60 10000
maxmemory {maxmemory_mib}mb
# An evicted key may be a job: refuse writes and raise the alert.
maxmemory-policy noeviction
tcp-keepalive 60
"""


def users_acl(app: str, exporter: str) -> str:
    """Render the ACL file. app, exporter: passwords, of which only the SHA-256 is written."""
    hashes = [hashlib.sha256(password.encode()).hexdigest() for password in (app, exporter)]
    return f"""\
user default on nopass resetkeys resetchannels -@all +ping
user {APP_USER} on #{hashes[0]} ~* &* +@all -@admin -@dangerous +info +keys
user {EXPORTER_USER} on #{hashes[1]} resetkeys resetchannels -@all +ping +hello +info +config|get +client|setname \
+slowlog|get +slowlog|len +latency|latest +latency|histogram
"""
