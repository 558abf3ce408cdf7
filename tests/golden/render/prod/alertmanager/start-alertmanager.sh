#!/bin/sh
# Rendered by Samokoder Platform.
data=/alertmanager
program=/bin/alertmanager
try=/tmp/try

# AlertManager does not start with a file of its own that it cannot read. On a disk that is nearly full it makes such a
# file itself: it writes a part of the new one, and puts that in the place of the whole one.
look() {
    # Half written files stay where it was killed or the disk was full.
    rm -f "$data/$1".[0-9a-f]*
    rm -rf "$try"
    mkdir "$try" || return
    # A link, because AlertManager writes the file at its end, and the disk may be full again.
    ln -s "$data/$1" "$try/$1" || return
    printf 'route: {receiver: nobody}\nreceivers: [{name: nobody}]\n' > "$try/try.yml" || return
    # No such port exists, so this ends after it has read the file.
    said=$("$program" --config.file="$try/try.yml" --storage.path="$try" --cluster.listen-address= \
        --web.listen-address=127.0.0.1:-1 2>&1)
    case "$said" in
        *"permission denied"*) ;;
        *"error creating notification log"* | *"error creating silence"*)
            mv -f "$data/$1" "$data/damaged-$1" && echo "AlertManager cannot read its file $1, as after a full disk." \
                "It is kept as $data/damaged-$1. $2"
            ;;
    esac
}

look nflog "Alerts that fire are sent once more."
look silences "All silences are gone: make them anew."
exec "$program" "$@"
