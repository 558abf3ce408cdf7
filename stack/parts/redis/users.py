"""The part redis-users: applies the declared users of Redis whenever the server starts, and stays running.

It is not a job that ends, for the reason in `stack/parts/postgres/roles.py`. It changes all users of the running server
in one transaction. Connections stay open, unless a password of their user is withdrawn: Redis does not tell with which
of a user's passwords a session logged in, so the same transaction ends all sessions of that user.
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
    """Describe the part."""
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
            # The image declares a volume here; without a mount the engine would create an anonymous one.
            "/data": "ro,noexec,nosuid,nodev,size=4k",
        },
        health_command=health.APPLIED,
        networks=(NetworkName.DATA,),
        scrape=NotScraped(reason="has nothing to measure: its health says whether the users are applied"),
        stop_grace_seconds=5,
        after=(redis.PART,),
    )


def files(environment: Environment) -> Files:
    """Return the script, the commands with the hashes of the passwords, and the password of redis-users itself."""
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


# redis-cli exits with 0 whatever the server answers to commands from its standard input, so the script checks the
# answers. The script subscribes to a channel without messages to notice the end of the server. It gives its own user
# the right to end sessions, because adding that right to seed.acl would replace the Redis container.
# Quoted, because a shell would take each `|` for a pipe.
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
    unknown=
    for user in {redis.APP_USER} {redis.EXPORTER_USER} {redis.BACKUP_USER}; do
        # By itself: in a pipe a question that fails would be a user without a password that is withdrawn.
        if ! ask -e ACL GETUSER "$user" > /tmp/user 2>&1; then unknown=$user && break; fi
        grep -xE '[0-9a-f]{{64}}' /tmp/user > /tmp/hashes || [ $? = 1 ]
        while read -r hash; do
            grep -q "^ACL SETUSER $user .*#$hash" /etc/samokoder/users.redis || echo "CLIENT KILL USER $user"
        done < /tmp/hashes | sort -u >> /tmp/withdrawn
    done
    if [ -n "$unknown" ]; then
        # Nothing is applied: afterwards Redis would no longer know a withdrawn password.
        head -n 1 /tmp/user >> /tmp/answers
    else
        {{
            echo MULTI
            sed '/^ACL SAVE$/d' /etc/samokoder/users.redis
            cat /tmp/withdrawn
            echo EXEC
            echo ACL SAVE
        }} > /tmp/commands
        ask < /tmp/commands >> /tmp/answers 2>&1 || :
    fi
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
    """Render the commands, one per line.

    app: every accepted password of the application. exporter: its password. backup: password of the backup server,
    which gets a copy of everything as a replica does and may not read or write keys; empty without backups. login:
    whether clients must log in; if not, a client without a login has the application's rights too.

    While the server starts, `default` has all rights but is off (`redis.seed_acl`). A single command reduces its rights
    and turns it on, so no client ever has all rights. If clients must log in, `default` is only turned off and keeps
    its rights as they are, because a connection that was let in before is still `default`.
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
