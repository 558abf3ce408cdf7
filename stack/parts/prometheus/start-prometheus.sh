#!/bin/sh
# Rendered by Samokoder Platform.
data=/prometheus
program=/bin/prometheus
tool=/bin/promtool

move() {
    kept=$data/damaged-$1
    number=1
    while [ -e "$kept" ]; do
        number=$((number + 1))
        kept=$data/damaged-$1-$number
    done
    mv "$data/$1" "$kept" && echo "Prometheus does not start with $1, which $2. It is kept as $kept. $3"
}

# Prints why Prometheus does not start with the files of chunks_head; nothing where it does, or where one cannot be read.
damage_of_chunks() {
    names=$(ls "$data/chunks_head" 2> /dev/null | grep -x '[0-9]*' | sort -n)
    last=$(printf '%s\n' "$names" | tail -n 1)
    before=
    for name in $names; do
        bytes=$(od -An -tx1 -N8 "$data/chunks_head/$name") || return
        # shellcheck disable=SC2086 # each byte is a word
        set -- $bytes
        magic=$1$2$3$4
        if [ "$name" = "$last" ] && { [ $# -lt 4 ] || [ "$magic" = 00000000 ]; }; then
            return # Prometheus removes it by itself, but no other file.
        elif [ -n "$before" ] && [ "$(expr "$name" - "$before")" != 1 ]; then
            echo "has no file between $before and $name"
            return
        elif [ $# -lt 8 ] || [ "$magic" != 0130bc91 ]; then
            echo "has a file $name that begins with ${*:-nothing}"
            return
        fi
        before=$name
    done
}

# promtool makes such a folder, and leaves it where it is killed.
rm -rf "$data"/tmp_dbro_sandbox[0-9]*

# One damaged block, as a power cut leaves it, keeps Prometheus from starting, and then nobody is told of anything.
# Other errors are not the block's: rights, memory, the disk itself, or the format of a newer Prometheus.
if ! said=$("$tool" tsdb list "$data" 2>&1 > /dev/null); then
    case "$said" in
        *"corrupted block "*) ;;
        *) printf 'promtool cannot look for damaged blocks: %s\n' "$(printf '%s' "$said" | tail -n 1)" ;;
    esac
fi
of_content='size 0|invalid (size|magic|checksum)|checksum|unexpected|no such file'
printf '%s\n' "$said" | sed -nE "s/^corrupted block ([0-9A-Z]{26}): (.*($of_content).*)/\1 \2/p" |
    while read -r block why; do
        move "$block" "is damaged ($why)" "Only its hours are missing in graphs; remove it to have its space."
    done
why=$(damage_of_chunks)
[ -z "$why" ] || move chunks_head "$why" "What the write-ahead log still has is read from it."
exec "$program" "$@"
