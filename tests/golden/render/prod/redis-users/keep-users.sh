#!/bin/sh
# Rendered by stack/app/redis_users.py.
set -eu
umask 077
REDISCLI_AUTH=$(cat /etc/samokoder/keeper_password)
export REDISCLI_AUTH
ask() { redis-cli -h redis -p 6379 --user samokoder_keeper "$@"; }
while :; do
    rm -f /tmp/applied
    until ask ping > /tmp/ping 2>&1 && grep -qx PONG /tmp/ping; do
        if grep WRONGPASS /tmp/ping; then exit 1; fi
        sleep 0.5
    done
    ask < /etc/samokoder/users.redis > /tmp/answers 2>&1 || :
    if grep -vx OK /tmp/answers || [ "$(grep -cx OK /tmp/answers)" -ne "$(wc -l < /etc/samokoder/users.redis)" ]; then
        echo "the users are not applied"
        exit 1
    fi
    touch /tmp/applied
    echo "users applied"
    ask subscribe samokoder:keeper > /tmp/subscription 2>&1 || :
done
