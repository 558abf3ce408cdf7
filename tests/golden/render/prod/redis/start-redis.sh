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
    held=$(find $parts \( -name '*.incr.aof' -size +0 -o -name '*.base.*' -size +200c \))
fi
if [ -n "$held" ]; then
    echo "appendonly.aof.manifest is gone, the list of the append-only file's parts."
    echo "To mend it: make repair PART=redis ENV=…"
    exit 1
fi
# A snapshot or a rewrite that was killed with its server leaves its file, as large as all data, and nobody removes it.
find /data \( -name 'temp-*.rdb' -o -name 'temp-*.aof' \) -exec rm -f {} + || :
users=/data/users.acl
sha256() { sha256sum | cut -d ' ' -f 1; }
# Each start makes another password of the health check: nobody outside of this container has it.
password=$(head -c 32 /dev/urandom | sha256)
printf %s "$password" > /tmp/health_password
always() {
    cat /etc/samokoder/seed.acl
    echo "user samokoder_health on #$(printf %s "$password" | sha256) resetkeys resetchannels -@all +ping"
}
compose() {
    always
    if [ -r "$users" ]; then grep -aE '^user (samokoder_app|samokoder_monitoring|samokoder_backup) ' "$users" || :; fi
}
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
    ask() { redis-cli -s /tmp/read.sock "$@"; }
    redis-server --port 0 --unixsocket /tmp/read.sock --dir /data --save '' > /tmp/read.log 2>&1 &
    until ask ping 2>&1 | grep -qx PONG; do
        kill -0 $! 2> /dev/null || { cat /tmp/read.log; exit 1; }
        sleep 0.05
    done
    [ "$(ask config set appendonly yes)" = OK ]
    until [ "$(ask info persistence | grep -cE '^aof_rewrite_(in_progress|scheduled):0')" = 2 ]; do
        kill -0 $! 2> /dev/null || { cat /tmp/read.log; exit 1; }
        sleep 0.05
    done
    ask info persistence | grep -q '^aof_last_bgrewrite_status:ok'
    ask shutdown nosave || :
    wait $! || :
fi
exec redis-server /etc/samokoder/redis.conf
