"""Redis 7: queue and cache, only in the network `data` and not published.

Redis keeps its users in its own volume, which it can write. The part redis-users (`users.py`) changes them while the
server runs, so a new password changes no file of this part and restarts nothing.
"""

from __future__ import annotations

import hashlib

from stack.common.names import NetworkName
from stack.settings.environment import Environment
from stack.spec.files import Files, Template
from stack.spec.service import DataVolume, NotScraped, ServiceSpec

PART = "redis"
PORT = 6379
APP_USER = "samokoder_app"
EXPORTER_USER = "samokoder_monitoring"
BACKUP_USER = "samokoder_backup"
KEEPER_USER = "samokoder_keeper"
HEALTH_USER = "samokoder_health"
KEEPER_CHANNEL = "samokoder:keeper"
USERS_FILE = "/data/users.acl"
_HEALTH_PASSWORD = "/tmp/health_password"  # noqa: S105, S108 - a path, in the container's own tmpfs


def spec(environment: Environment) -> ServiceSpec:
    """Describe the server."""
    settings = environment.settings.redis
    return ServiceSpec(
        part=PART,
        component="samokoder:app:Redis",
        image=environment.image("redis"),
        user="999:999",
        settings=settings,
        entrypoint=("/etc/samokoder/start-redis.sh",),
        files=files(environment),
        data=DataVolume(name="redis", path="/data", adopt=settings.adopt_volume),
        health_command=("/etc/samokoder/healthy.sh",),
        networks=(NetworkName.DATA,),
        scrape=NotScraped(reason="speaks no HTTP: redis-exporter measures it"),
        open_files=10240,
    )


def files(environment: Environment) -> Files:
    """Return the configuration, the users that always exist, and the scripts for start and health."""
    return {
        "redis.conf": redis_conf(environment.settings.redis.maxmemory_mib),
        "seed.acl": Template(("redis_keeper",), seed_acl),
        "start-redis.sh": START_REDIS,
        "healthy.sh": HEALTHY,
    }


# -e, because redis-cli otherwise exits with 0 even if the answer is an error, as while Redis loads its file.
HEALTHY = f"""\
#!/bin/sh
# Rendered by Samokoder Platform.
REDISCLI_AUTH=$(cat {_HEALTH_PASSWORD})
export REDISCLI_AUTH
exec redis-cli -e --user {HEALTH_USER} "$@" ping
"""


# The user of redis-users comes from the stack and the other users from the volume: so a volume of another installation
# does not lock redis-users out, and a restart locks no client out. Users with any other name are removed.
START_REDIS = f"""\
#!/bin/sh
# Rendered by Samokoder Platform.
set -eu
umask 077
# As PostgreSQL without its PG_VERSION: half of the data is never served, nor written to.
for marker in /data/.samokoder-copying /data/.samokoder-restore; do
    if [ -e "$marker" ]; then
        echo "This data is incomplete: a restore was cut off here. Its note says:"
        head -c 500 "$marker"
        exit 1
    fi
done
# Redis takes files that no list names for none at all: it begins empty, and writes over them. Of a first start that was
# killed a base of some 100 bytes stays, with no key in it.
parts=/data/appendonlydir
held=
if [ -d $parts ] && [ ! -e $parts/appendonly.aof.manifest ]; then
    # In a condition a question that fails would be a no.
    held=$(find $parts \\( -name '*.incr.aof' -size +0 -o -name '*.base.*' -size +200c \\))
fi
if [ -n "$held" ]; then
    echo "appendonly.aof.manifest is gone, the list of the append-only file's parts."
    echo "To mend it: make repair PART=redis ENV=…"
    exit 1
fi
# A snapshot or a rewrite that was killed with its server leaves its file, as large as all data, and nobody removes it.
find /data \\( -name 'temp-*.rdb' -o -name 'temp-*.aof' \\) -exec rm -f {{}} + || :
users={USERS_FILE}
sha256() {{ sha256sum | cut -d ' ' -f 1; }}
# Each start makes another password of the health check: nobody outside of this container has it.
password=$(head -c 32 /dev/urandom | sha256)
printf %s "$password" > {_HEALTH_PASSWORD}
always() {{
    cat /etc/samokoder/seed.acl
    echo "user {HEALTH_USER} on #$(printf %s "$password" | sha256) resetkeys resetchannels -@all +ping"
}}
compose() {{
    always
    if [ -r "$users" ]; then grep -aE '^user ({APP_USER}|{EXPORTER_USER}|{BACKUP_USER}) ' "$users" || :; fi
}}
compose > "$users.new"
# Redis does not start with a file that it cannot read, so a server without data and network tries it first.
redis-server --port 0 --unixsocket /tmp/try.sock --dir /tmp --save '' --aclfile "$users.new" > /tmp/try.log 2>&1 &
until /etc/samokoder/healthy.sh -s /tmp/try.sock > /tmp/ping 2>&1; do
    if ! kill -0 $! 2> /dev/null; then
        echo "the saved users cannot be read; the keeper will make them anew"
        tail -n 3 /tmp/try.log
        if [ -e "$users" ]; then cp "$users" "$users.broken"; fi
        always > "$users.new"
        break
    fi
    sleep 0.05
done
kill $! 2> /dev/null || :
wait $! || :
mv "$users.new" "$users"
# With an append-only file Redis looks at no snapshot: a volume that has one alone, as one of another installation may,
# would be served empty, and its snapshot then overwritten.
if [ -e /data/dump.rdb ] && [ ! -e /data/appendonly.aof ] && [ ! -e /data/appendonlydir/appendonly.aof.manifest ]; then
    echo "a snapshot alone: an append-only file is made of it"
    ask() {{ redis-cli -s /tmp/read.sock "$@"; }}
    redis-server --port 0 --unixsocket /tmp/read.sock --dir /data --save '' > /tmp/read.log 2>&1 &
    until ask ping 2>&1 | grep -qx PONG; do
        kill -0 $! 2> /dev/null || {{ cat /tmp/read.log; exit 1; }}
        sleep 0.05
    done
    [ "$(ask config set appendonly yes)" = OK ]
    until [ "$(ask info persistence | grep -cE '^aof_rewrite_(in_progress|scheduled):0')" = 2 ]; do
        kill -0 $! 2> /dev/null || {{ cat /tmp/read.log; exit 1; }}
        sleep 0.05
    done
    ask info persistence | grep -q '^aof_last_bgrewrite_status:ok'
    ask shutdown nosave || :
    wait $! || :
fi
exec redis-server /etc/samokoder/redis.conf
"""


def redis_conf(maxmemory_mib: int) -> str:
    """Render redis.conf."""
    return f"""\
# Rendered by Samokoder Platform.
bind 0.0.0.0
port {PORT}
# Passwords and the network guard it; protected mode would refuse every other container.
protected-mode no
dir /data
aclfile {USERS_FILE}
appendonly yes
appendfsync everysec
# Notes the second of what follows: so a repair can say how much is lost.
aof-timestamp-enabled yes
save 3600 1 300 100 60 10000
maxmemory {maxmemory_mib}mb
# An evicted key may be a job: refuse writes and raise the alert.
maxmemory-policy noeviction
tcp-keepalive 60
"""


def seed_acl(keeper: str) -> str:
    """Render the users with which the server always starts. keeper: password of redis-users, written as SHA-256 only.

    `default` has all rights, but nobody can log in as it. Redis reads its append-only file as this user, and checks the
    rights of commands in a transaction there (docs/adr/0020-redis-reads-its-file-with-all-rights.md).
    """
    return f"""\
user default off resetpass ~* &* +@all
user {KEEPER_USER} on #{password_hash(keeper)} resetkeys resetchannels &{KEEPER_CHANNEL} -@all +ping +acl|setuser \
+acl|save +subscribe
"""


def password_hash(password: str) -> str:
    """Return the form in which Redis stores a password: its SHA-256, in hexadecimal digits."""
    return hashlib.sha256(password.encode()).hexdigest()
