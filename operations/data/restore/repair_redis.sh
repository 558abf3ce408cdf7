#!/bin/sh
# Copies Redis' data from the folder $1 into the empty folder $2, mends the copy in the way $3, and lets Redis read it,
# alone. What it found is its output, `name value` in each line, moments in seconds since 1970. Status 3: it cannot be
# read this way, and the last line on standard error says why.
#   read      as it is
#   cut       what stands behind the last command that can be read goes; a damaged list of the files is made anew
#   snapshot  the append-only file goes, and the snapshot is read
set -eu
refuse() { echo "$*" >&2; exit 3; }
folder=appendonlydir
manifest=$folder/appendonly.aof.manifest
for marker in .samokoder-copying .samokoder-restore; do
    if [ -e "$1/$marker" ]; then refuse "This data is incomplete: a restore was cut off here. It goes on by: make restore ENV=…"; fi
done
cd "$2"
# Where this is cut off, nobody takes the copy for data.
touch .samokoder-restore
# A Redis that starts again and again writes its users' file anew each time, so a file may be gone before it is copied.
tries=0
until cp -a "$1/." . 2> /tmp/copy; do
    tries=$((tries + 1))
    if [ $tries = 4 ]; then cat /tmp/copy >&2; exit 1; fi
    sleep 1
done

# The list names each file of the append-only file: one base, then what was appended, in order.
named() { sed -n "s/^file \(appendonly\.aof[a-z0-9.]*\) seq [0-9]* type [$1]\( .*\)*\$/\1/p" $manifest; }
listed() {
    [ -s $manifest ] && ! grep -qavE '^file appendonly\.aof[a-z0-9.]* seq [0-9]+ type [bih]( [a-z]+ [0-9]+)*$' $manifest ||
        return 1
    [ -n "$(named bi)" ] || return 1
    for file in $(named bi); do [ -e "$folder/$file" ] || return 1; done
}
# Only where the names leave no doubt: with a second base, or a second file of appended commands, the order is not known.
list_anew() {
    set -- $folder/appendonly.aof.*.base.*
    [ $# = 1 ] && [ -e "$1" ] || refuse "The list of the append-only file's parts is damaged, and which they were is in doubt"
    base=${1##*/}
    set -- $folder/appendonly.aof.*.incr.aof
    [ $# = 1 ] || refuse "The list of the append-only file's parts is damaged, and which they were is in doubt"
    number() { echo "$1" | sed 's/.*\.aof\.\([0-9]*\)\..*/\1/'; }
    echo "file $base seq $(number "$base") type b" > $manifest
    if [ -e "$1" ]; then echo "file ${1##*/} seq $(number "$1") type i" >> $manifest; fi
    echo "list anew"
}
# The moment up to which an RDB file has everything: its save's begin, which it notes itself. The file's own time is the
# end of the save, when writes of minutes may be missing in it. $1: the file that is read, $2: the one with its time.
saved() {
    begun=$(redis-check-rdb "$1" 2> /dev/null | sed -n "s/.* AUX FIELD ctime = '\([0-9][0-9]*\)'\$/\1/p" | head -n 1)
    echo "${begun:-$(stat -c %Y "$2")}"
}
# Lets Redis' own tool cut, and notes what is left: bytes of the last file, and the moment of its last command.
cut_off() {
    { yes || :; } 2> /dev/null | redis-check-aof --fix "$whole" > /tmp/check 2>&1 ||
        refuse "$(grep -avE '^ *$' /tmp/check | tail -n 1)"
    size=$(stat -c %s "$last")
    kept=$(grep -aoE '^#TS:[0-9]{10}' "$last" | tail -n 1 | cut -d : -f 2)
}

# Sets `said` to why Redis does not read it; empty where it does. $1: whether the append-only file is read.
read_by_redis() {
    redis-server --port 0 --unixsocket /tmp/repair.sock --dir "$PWD" --save '' --appendonly "$1" > /tmp/log 2>&1 &
    ask() { redis-cli -e -s /tmp/repair.sock "$@"; }
    said=
    until ask ping 2> /dev/null | grep -qx PONG; do
        if ! kill -0 $! 2> /dev/null; then
            said=$(sed -n 's/^.* # //p' /tmp/log | grep -vE '^(WARNING|Warning|$)' | tail -n 1)
            said=${said:-Redis ended without a reason}
            return
        fi
        sleep 0.1
    done
    # Each answer by itself: in a pipe a question that fails would be no keys, and nothing refused.
    keyspace=$(ask info keyspace)
    stats=$(ask info stats)
    printf '%s\n' "$keyspace" | sed -n 's/^db[0-9]*:keys=\([0-9]*\).*/\1/p' |
        awk '{ sum += $1 } END { print "keys", sum + 0 }'
    printf '%s\n' "$stats" | tr -d '\r' | sed -n 's/^unexpected_error_replies:/refused /p'
    ask shutdown nosave > /dev/null 2>&1 || :
    wait $! || :
}

appendonly=yes
case $3 in
read)
    # Redis takes files that no list names for none at all, begins empty and writes over them. As in start-redis.sh.
    held=
    if [ -d $folder ] && [ ! -e $manifest ]; then
        held=$(find $folder \( -name '*.incr.aof' -size +0 -o -name '*.base.*' -size +200c \))
    fi
    if [ -n "$held" ]; then
        refuse "The list of the append-only file's parts (appendonly.aof.manifest) is gone"
    fi
    if [ ! -e $manifest ] && [ ! -e appendonly.aof ]; then appendonly=no; fi
    ;;
cut)
    whole=$manifest
    if [ -d $folder ]; then
        listed || list_anew
        last=$folder/$(named i | tail -n 1)
        if [ "$last" = $folder/ ]; then last=$folder/$(named b); fi
        base=$folder/$(named b)
    else
        whole=appendonly.aof last=appendonly.aof base=appendonly.aof
    fi
    [ -e "$last" ] || refuse "There is no append-only file"
    cut_off
    read_by_redis yes > /tmp/read
    # The tool looks at the form alone. At a command that does not exist, all from the moment noted before it goes.
    case $said in *"Unknown command '"*)
        name=$(echo "$said" | sed "s/.*Unknown command '\([^']*\)'.*/\1/")
        at=$(grep -aboxF -- "$name$(printf '\r')" "$last" | head -n 1 | cut -d : -f 1)
        noted=$(grep -aboE '^#TS:[0-9]{10}' "$last" | cut -d : -f 1 | awk -v at="${at:-0}" '$1 < at { n = $1 } END { print n }')
        if [ -n "$noted" ]; then
            truncate -s "$noted" "$last"
            cut_off
            read_by_redis yes > /tmp/read
        fi
    esac
    if [ -n "$said" ]; then refuse "$said"; fi
    cat /tmp/read
    # A file of no command at all: what is kept is what the base has.
    if [ "$size" = 0 ] || [ "$last" = "$base" ]; then kept=${kept:-$(saved "$base" "$1/$base")}; fi
    echo "kept $kept"
    echo "bytes $(($(stat -c %s "$1/$last") - size))"
    echo "commands $(tail -c "+$((size + 1))" "$1/$last" | grep -acE '^\*[0-9]+.$' || :)"
    echo "written $(stat -c %Y "$1/$last")"
    ;;
snapshot)
    [ -e dump.rdb ] || refuse "There is no snapshot"
    redis-check-rdb dump.rdb > /tmp/check 2>&1 || refuse "$(grep -a ERROR -A 1 /tmp/check | tail -n 1)"
    rm -rf $folder appendonly.aof
    appendonly=no
    echo "kept $(saved dump.rdb "$1/dump.rdb")"
    ;;
esac
if [ "$3" != cut ]; then
    read_by_redis $appendonly
    if [ -n "$said" ]; then refuse "$said"; fi
fi
sync -f .
rm .samokoder-restore
sync -f .
