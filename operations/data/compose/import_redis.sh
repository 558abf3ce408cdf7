#!/bin/sh
# Opens the copy of a Redis data folder as this stack's Redis will: $1 the folder, $2 whether its append-only file is read
# (yes) or its snapshot (no), $3 how many bytes this stack's Redis may hold. What it found is its output; status 3 is a
# refusal, its reason on standard error. What is not read is removed, for this stack's Redis would read it.
set -eu
refuse() { echo "$*" >&2; exit 3; }
# Redis takes an append-only file that its list does not name for none: it begins empty, or with an earlier version's.
list=appendonlydir/appendonly.aof.manifest
if [ "$2" = yes ] && [ -d "$1/appendonlydir" ] && [ ! -f "$1/$list" ]; then
    if [ -f "$1/appendonly.aof" ]; then
        refuse "Its append-only file has no list ($list), and Redis would read appendonly.aof beside it, which an" \
            "earlier version has written: put the list back into the old volume, or take appendonlydir out of it and" \
            "appendonly.aof is read"
    fi
    refuse "Its append-only file has no list ($list), and Redis would begin empty: put the list back into the old" \
        "volume, or take appendonlydir out of it and its snapshot (dump.rdb) is read"
fi
if [ "$2" = yes ] && [ ! -d "$1/appendonlydir" ] && [ ! -f "$1/appendonly.aof" ]; then
    refuse "The copy has no append-only file any more: the same command copies it anew"
fi
if [ "$2" = no ] && [ ! -f "$1/dump.rdb" ]; then refuse "The copy has no snapshot: the same command copies it anew"; fi
if [ "$2" = no ]; then rm -rf "$1/appendonlydir" "$1/appendonly.aof"; fi
cat > /tmp/redis.conf <<END
port 0
unixsocket /tmp/redis.sock
dir $1
save ""
appendonly $2
END
redis-server /tmp/redis.conf > /tmp/log 2>&1 &
ask() { redis-cli -e -s /tmp/redis.sock "$@"; }
until ask ping 2> /dev/null | grep -qx PONG; do
    kill -0 $! 2> /dev/null || { grep -E '#|rror' /tmp/log | tail -n 5 >&2; exit 1; }
    sleep 0.2
done
# Each answer by itself: in a pipe or a condition a question that fails would be a no.
memory=$(ask info memory)
used=$(printf '%s\n' "$memory" | sed -n 's/^used_memory_dataset:\([0-9]*\).*/\1/p')
if [ -z "$used" ]; then echo 'Redis does not say how much it holds' >&2 && exit 1; fi
if [ "$used" -gt "$3" ]; then
    refuse "It holds $((used / 1048576)) MiB, and this stack's Redis may hold $(($3 / 1048576)): raise" \
        "samokoder:redis.maxmemoryMib"
fi
keys=$(ask dbsize)
keyspace=$(ask info keyspace)
databases=$(printf '%s\n' "$keyspace" | grep -c '^db' || :)
ask shutdown nosave || :
wait $! || :
echo "Redis: $keys keys in database 0, $databases databases with keys"
