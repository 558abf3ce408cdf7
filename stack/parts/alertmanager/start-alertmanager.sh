#!/bin/sh
# Rendered by Samokoder Platform.
data=/alertmanager
program=/bin/alertmanager
try=/tmp/try

# AlertManager writes a new file beside the old one, with a random number behind its name: 15 or 16 hexadecimal digits,
# but for 1 in 128. Where it is killed or the disk is full, that file stays. Shorter names may be a person's own copies.
remove_half_written() {
    for file in "$data/$1".*; do
        digits=${file#"$data/$1."}
        case "${#digits} $digits" in
            *" "*[!0-9a-f]*) ;;
            "15 "* | "16 "*) rm -f "$file" ;;
        esac
    done
}

keep() {
    kept=$data/damaged-$1
    number=1
    while [ -e "$kept" ]; do
        number=$((number + 1))
        kept=$data/damaged-$1-$number
    done
    mv "$data/$1" "$kept"
}

# AlertManager does not start with a file of its own that it cannot read. On a disk that is nearly full it makes such a
# file itself: it writes a part of the new one, and puts that in the place of the whole one.
look() {
    remove_half_written "$1"
    rm -rf "$try"
    mkdir "$try" || return
    # A link, because AlertManager writes the file at its end, and the disk may be full again.
    ln -s "$data/$1" "$try/$1" || return
    printf 'route: {receiver: nobody}\nreceivers: [{name: nobody}]\n' > "$try/try.yml" || return
    # No such port exists, so this ends after it has read the file.
    said=$("$program" --config.file="$try/try.yml" --storage.path="$try" --cluster.listen-address= \
        --web.listen-address=127.0.0.1:-1 2>&1)
    # What its decoder says of content. Any other error (of rights, memory, the disk) passes, and the file is good.
    case "$said" in
        *"error creating $2: unexpected EOF"* | *"error creating $2: invalid state"* | *"error creating $2: proto:"* | \
            *"error creating $2: string field contains invalid UTF-8"*)
            keep "$1" && echo "AlertManager cannot read its file $1, as after a full disk. It is kept as $kept. $3"
            ;;
    esac
}

look nflog "notification log" "Alerts that fire are sent once more."
look silences silence "All silences are gone: make them anew."
exec "$program" "$@"
