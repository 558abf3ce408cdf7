#!/bin/sh
# Rendered by Samokoder Platform.
set -eu
umask 077
REDISCLI_AUTH=$(cat /etc/samokoder/keeper_password)
export REDISCLI_AUTH
ask() { redis-cli -h redis -p 6379 --user samokoder_keeper "$@"; }
tries=0 told=
while :; do
    rm -f /tmp/applied
    until ask ping > /tmp/ping 2>&1 && grep -qx PONG /tmp/ping; do
        if grep WRONGPASS /tmp/ping; then exit 1; fi
        # Who finds the keeper unhealthy finds the reason in its log.
        if [ "$(cat /tmp/ping)" != "$told" ]; then told=$(cat /tmp/ping) && echo "waiting for Redis: $told"; fi
        sleep 0.5
    done
    ask ACL SETUSER samokoder_keeper '+client|kill' '+acl|getuser' +multi +exec > /tmp/answers 2>&1 || :
    : > /tmp/withdrawn
    unknown=
    for user in samokoder_app samokoder_monitoring samokoder_backup; do
        # By itself: in a pipe a question that fails would be a user without a password that is withdrawn.
        if ! ask -e ACL GETUSER "$user" > /tmp/user 2>&1; then unknown=$user && break; fi
        grep -xE '[0-9a-f]{64}' /tmp/user > /tmp/hashes || [ $? = 1 ]
        while read -r hash; do
            grep -q "^ACL SETUSER $user .*#$hash" /etc/samokoder/users.redis || echo "CLIENT KILL USER $user"
        done < /tmp/hashes | sort -u >> /tmp/withdrawn
    done
    if [ -n "$unknown" ]; then
        # Nothing is applied: afterwards Redis would no longer know a withdrawn password.
        head -n 1 /tmp/user >> /tmp/answers
    else
        {
            echo MULTI
            sed '/^ACL SAVE$/d' /etc/samokoder/users.redis
            cat /tmp/withdrawn
            echo EXEC
            echo ACL SAVE
        } > /tmp/commands
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
    if [ -s /tmp/withdrawn ]; then echo "sessions ended: $(tr '
' ';' < /tmp/withdrawn)"; fi
    touch /tmp/applied
    echo "users applied"
    ask subscribe samokoder:keeper > /tmp/subscription 2>&1 || :
done
