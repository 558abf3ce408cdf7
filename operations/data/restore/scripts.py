"""The shell scripts that check a data volume, copy it and release it to its server."""

from __future__ import annotations

from stack.common.names import APPLICATION_USER
from stack.parts.backup.workspace import MARK
from stack.parts.postgres import spec as postgres

# A copy begins with the marker .samokoder-copying and ends with PG_VERSION or the workspace's mark. Without PG_VERSION
# PostgreSQL does not start, and in a folder that is not empty it makes no new database, so an interrupted copy is never
# taken for data. The marker is renamed into place, because an earlier copy's marker must be there all the time. Its
# owner is not the application, which may create a file of any name in its workspace: such a file does not count.
_CUT_OFF = f"""\
cut_off() {{
    for mark in .samokoder-copying .samokoder-restore; do
        [ -e "$1/$mark" ] || continue
        [ "$2" = workspace ] && [ "$(stat -c %u "$1/$mark")" = {APPLICATION_USER.partition(":")[0]} ] || return 0
    done
    return 1
}}
"""
WHOLE = f"""\
set -eu
{_CUT_OFF}
! cut_off "$1" "$2" || exit 1
case $2 in
    postgres) [ -s "$1/PG_VERSION" ] && [ -s "$1/global/pg_control" ] ;;
    redis) [ -s "$1/appendonlydir/appendonly.aof.manifest" ] || [ -e "$1/appendonly.aof" ] || [ -e "$1/dump.rdb" ] ;;
    workspace) [ -e "$1/{MARK}" ] || [ -L "$1/{MARK}" ] ;;
    backup) [ -d "$1/barman" ] || [ -d "$1/dumps" ] || [ -d "$1/redis" ] || [ -e "$1/lock" ] ;;
esac
"""
"""Succeeds where the folder $1 has a complete copy of the data of $2, and no marker of an interrupted copy."""
_RELEASE = """\
if [ -e .samokoder-version ]; then mv .samokoder-version PG_VERSION; fi
sync -f .
[ -d .samokoder-copying ] || rm -f .samokoder-copying
sync -f .
"""
RELEASE = f"""\
set -eu
cd "$1"
{_RELEASE}"""
"""Lets a server start on the folder $1, which a replacement was copied into."""
COPY = f"""\
set -eu
marker=.samokoder-copying version=.samokoder-version server=$3
[ -z "${{5:-}}" ] || server=workspace
{_CUT_OFF}
whole() (
{WHOLE}
)
if [ -n "$3" ] && ! (whole "$1" "$3"); then
    echo 'This volume is incomplete: what was to fill it was cut off, or it is empty.' >&2
    exit 2
fi
cd "$2"
rm -rf $marker.new
echo "Incomplete: a restore was cut off here. It goes on by: $4" > $marker.new
if [ -d $marker ] && [ ! -L $marker ]; then rm -rf $marker; fi
mv -fT $marker.new $marker
sync -f .
rm -rf PG_VERSION {MARK}
find . -mindepth 1 -maxdepth 1 ! -name $marker -exec rm -rf {{}} +
cd "$1"
find . -mindepth 1 -maxdepth 1 ! -name $marker ! -name PG_VERSION ! -name {MARK} \\
    -exec cp -a --reflink=auto -t "$2" {{}} +
if [ -e PG_VERSION ]; then cp -a PG_VERSION "$2/$version"; fi
chmod --reference=. "$2"
if [ -n "${{5:-}}" ]; then
    (cd "$2" && find . ! -path ./$marker -exec chown -h "$5" {{}} +)
    if ! cut_off . "$server"; then
        if [ -e {MARK} ] || [ -L {MARK} ]; then cp -a {MARK} "$2"; else touch "$2/{MARK}"; fi
        chown -h "$5" "$2/{MARK}"
    fi
fi
sync -f "$2"
if [ -z "$3" ] && ! cut_off . "$server"; then
    cd "$2"
{_RELEASE}
fi
"""
# A running server may delete files while `du` counts them, so errors of `du` are ignored.
SIZES = 'du -s -B1 "$1" 2> /dev/null | cut -f1 || :; df -B1 --output=avail "$1" | tail -n 1'
# On the Unix socket the container's user is the superuser. The new password appears in no command and in no log.
SET_OWN = rf"""
export PGOPTIONS='{postgres.PINNED_OPTIONS}'
exec psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname=postgres <<'END' 2>&1
SET log_min_error_statement = panic;
SET log_min_duration_statement = -1;
SET log_statement = 'none';
\set password `cat "$POSTGRES_PASSWORD_FILE"`
ALTER ROLE CURRENT_USER PASSWORD :'password';
END
"""
