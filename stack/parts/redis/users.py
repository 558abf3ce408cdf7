"""The keeper of Redis' users: brings them to what is declared whenever the server starts, then stays.

A keeper and not a job that ends, for the reason in `stack/parts/postgres/roles.py`. It changes the users of the running
server, all in one transaction. A connection that is there stays, unless a password of its user is withdrawn: Redis does
not tell with which one of a user's passwords a session logged in, so all sessions of that user end, in the same
transaction.
"""

from __future__ import annotations

from collections.abc import Sequence

from stack.common.names import NetworkName
from stack.parts.redis import spec as redis
from stack.settings.environment import Environment
from stack.spec import health
from stack.spec.files import Files, Template, secret_file
from stack.spec.rotation import slots
from stack.spec.service import NotScraped, ServiceSpec

PART = "redis-users"


def spec(environment: Environment) -> ServiceSpec:
    """Describe the keeper."""
    return ServiceSpec(
        part=PART,
        component="samokoder:app:RedisUsers",
        image=environment.image("redis"),
        user="999:999",
        settings=environment.settings.redis_users,
        entrypoint=("/etc/samokoder/keep-users.sh",),
        files=files(environment),
        tmpfs={
            "/tmp": "rw,noexec,nosuid,nodev,size=1m",  # noqa: S108 - a mount of its own
            # The image declares a volume there: unmounted, the engine would make a nameless one.
            "/data": "ro,noexec,nosuid,nodev,size=4k",
        },
        health_command=health.APPLIED,
        networks=(NetworkName.DATA,),
        scrape=NotScraped(reason="has nothing to measure: its health says whether the users are applied"),
        stop_grace_seconds=5,
        after=(redis.PART,),
    )


def files(environment: Environment) -> Files:
    """Return the script, the commands with the hashes of the passwords, and the keeper's own password."""
    accepted = sorted(slots(environment, "redis_app").accepted)
    backup = ("redis_backup",) if environment.settings.backup.enabled else ()

    def commands(exporter: str, *passwords: str) -> str:
        given = dict(zip((*accepted, *backup), passwords, strict=True))
        return users_commands(
            app=[given[slot] for slot in accepted],
            exporter=exporter,
            backup=given.get("redis_backup", ""),
            login=environment.settings.redis.login != "none",
        )

    return {
        "keep-users.sh": KEEP_USERS,
        "users.redis": Template(("redis_exporter", *accepted, *backup), commands),
        "keeper_password": secret_file("redis_keeper"),
    }


# redis-cli ends with 0 whatever the server answers to commands that it reads from a file, so the answers are looked
# at. Its subscription to a channel that nobody writes to ends when the server does. The keeper gives itself the right
# to end sessions: with one in its seed, Redis itself would have to be replaced for it.
# Quoted: a shell makes a pipe of each stroke.
_TO_END_SESSIONS = "'+client|kill' '+acl|getuser' +multi +exec"
KEEP_USERS = f"""\
#!/bin/sh
# Rendered by Samokoder Platform.
set -eu
umask 077
REDISCLI_AUTH=$(cat /etc/samokoder/keeper_password)
export REDISCLI_AUTH
ask() {{ redis-cli -h {redis.PART} -p {redis.PORT} --user {redis.KEEPER_USER} "$@"; }}
tries=0 told=
while :; do
    rm -f /tmp/applied
    until ask ping > /tmp/ping 2>&1 && grep -qx PONG /tmp/ping; do
        if grep WRONGPASS /tmp/ping; then exit 1; fi
        # Who finds the keeper unhealthy finds the reason in its log.
        if [ "$(cat /tmp/ping)" != "$told" ]; then told=$(cat /tmp/ping) && echo "waiting for Redis: $told"; fi
        sleep 0.5
    done
    ask ACL SETUSER {redis.KEEPER_USER} {_TO_END_SESSIONS} > /tmp/answers 2>&1 || :
    : > /tmp/withdrawn
    for user in {redis.APP_USER} {redis.EXPORTER_USER} {redis.BACKUP_USER}; do
        ask ACL GETUSER "$user" | grep -xE '[0-9a-f]{{64}}' > /tmp/hashes || :
        while read -r hash; do
            grep -q "^ACL SETUSER $user .*#$hash" /etc/samokoder/users.redis || echo "CLIENT KILL USER $user"
        done < /tmp/hashes | sort -u >> /tmp/withdrawn
    done
    {{
        echo MULTI
        sed '/^ACL SAVE$/d' /etc/samokoder/users.redis
        cat /tmp/withdrawn
        echo EXEC
        echo ACL SAVE
    }} > /tmp/commands
    ask < /tmp/commands >> /tmp/answers 2>&1 || :
    wanted=$(($(wc -l < /etc/samokoder/users.redis) + 2))
    if grep -vxE 'OK|QUEUED|[0-9]+' /tmp/answers || [ "$(grep -cx OK /tmp/answers)" -ne "$wanted" ]; then
        # The server may have ended meanwhile: then all of it is asked again.
        tries=$((tries + 1))
        if [ "$tries" -lt 3 ]; then continue; fi
        echo "the users are not applied"
        exit 1
    fi
    tries=0
    if [ -s /tmp/withdrawn ]; then echo "sessions ended: $(tr '\n' ';' < /tmp/withdrawn)"; fi
    touch /tmp/applied
    echo "users applied"
    ask subscribe {redis.KEEPER_CHANNEL} > /tmp/subscription 2>&1 || :
done
"""


_APP_RIGHTS = "~* &* +@all -@admin -@dangerous +info +keys"


def users_commands(*, app: Sequence[str], exporter: str, backup: str, login: bool = True) -> str:
    """Render the commands, one a line.

    app: every accepted password of the application. exporter: its password. backup: the backup server's password, which
    gets a copy of everything as a replica does and may read or write no key; empty where no backups are made. login:
    whether one is needed; else whoever comes without one has the application's rights, too.

    `default` has all rights while the server starts, and is off (`redis.seed_acl`). It gets the lesser rights and is
    let in by one command, so nobody is ever let in with all of them; and where nobody is to be let in, it is only
    turned off, for a connection that was let in before keeps its user.
    """
    default = "off resetpass" if login else f"reset on nopass {_APP_RIGHTS}"
    hashes = " ".join(f"#{redis.password_hash(password)}" for password in app)
    copies = f"on #{redis.password_hash(backup)} -@all +ping +info +psync +sync +replconf" if backup else "off"
    return f"""\
ACL SETUSER {redis.APP_USER} reset on {hashes} {_APP_RIGHTS}
ACL SETUSER default {default}
ACL SETUSER {redis.EXPORTER_USER} reset on #{redis.password_hash(exporter)} -@all +ping +hello +info +config|get \
+client|setname +slowlog|get +slowlog|len +latency|latest +latency|histogram
ACL SETUSER {redis.BACKUP_USER} reset {copies}
ACL SAVE
"""
