#!/bin/sh
# Rendered by Samokoder Platform.
data=/prometheus
program=/bin/prometheus
tool=/bin/promtool

move() {
    rm -rf "$data/damaged-$1"
    mv "$data/$1" "$data/damaged-$1" && echo "Prometheus does not start with $1, which $2." \
        "It is kept as $data/damaged-$1. $3"
}

# One damaged block, as a power cut leaves it, keeps Prometheus from starting, and then nobody is told of anything.
# Other errors are not the block's: rights, memory, the disk itself.
"$tool" tsdb list "$data" 2>&1 > /dev/null |
    sed -nE 's/^corrupted block ([0-9A-Z]{26}): (.*(size 0|invalid|checksum|unexpected|no such file).*)/\1 \2/p' |
    while read -r block why; do
        move "$block" "is damaged ($why)" "Only its hours are missing in graphs; remove it to have its space."
    done
# Prometheus repairs the last of these files, and no other.
found=$(find "$data/chunks_head" -type f -size 0 2> /dev/null | sort | head -n 1)
if [ -n "$found" ] && [ "${found##*/}" != "$(ls "$data/chunks_head" | tail -n 1)" ]; then
    move chunks_head "has an empty file" "All of it is in the write-ahead log too."
fi
exec "$program" "$@"
