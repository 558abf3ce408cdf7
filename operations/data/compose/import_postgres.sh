#!/bin/sh
# Opens the copy of a PostgreSQL data folder as this stack's PostgreSQL will: $1 the folder, $2 the superuser's role,
# $3 the application's database, $4 the options of each session, which beat what the old database sets.
# What it found is its output; status 3 is a refusal, its reason on standard error.
# Alone on a socket, with nothing of the old configuration: that is this stack's from now on.
set -eu
superuser=$2 database=$3 question=$5
export PGDATA=$1 PGUSER=$2 PGHOST=/tmp PGOPTIONS="$4 -c client_min_messages=warning"
refuse() { echo "$*" >&2; exit 3; }
rm -f "$PGDATA/postmaster.pid"  # of a try that was cut off: nobody else has this copy
if [ -e "$PGDATA/postgresql.auto.conf" ]; then mv "$PGDATA/postgresql.auto.conf" "$PGDATA/postgresql.auto.conf.old"; fi
echo 'local all all trust' > /tmp/pg_hba.conf
: > /tmp/pg_ident.conf
cat > /tmp/postgresql.conf <<END
data_directory = '$PGDATA'
hba_file = '/tmp/pg_hba.conf'
ident_file = '/tmp/pg_ident.conf'
listen_addresses = ''
unix_socket_directories = '/tmp'
END
echo 'recover, and name the superuser' >&2
# In single-user mode one is the superuser whatever it is called, and a command is a line.
postgres --single -c config_file=/tmp/postgresql.conf -c search_path=pg_catalog template1 > /tmp/single 2>&1 <<END || { tail -n 5 /tmp/single >&2; exit 1; }
DO \$do\$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '$superuser') THEN CREATE ROLE $superuser; END IF; END \$do\$
ALTER ROLE $superuser SUPERUSER LOGIN
END
pg_ctl start --silent --wait --timeout=86400 -D "$PGDATA" -o '-c config_file=/tmp/postgresql.conf' -l /tmp/log \
    || { tail -n 5 /tmp/log >&2; exit 1; }
ask() { psql -XAtq --set=ON_ERROR_STOP=1 "$@" < /dev/null || exit 1; }  # its own status may be 3, which is a refusal
databases=$(ask -d template1 -c 'SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1')
if ! printf '%s\n' "$databases" | grep -qxF "$database"; then
    refuse "There is no database $database in it but: $(echo $databases). Say which one it is: samokoder:postgres.database"
fi
missing=$(ask -d "$database" -c 'SELECT extname FROM pg_extension
    WHERE extname NOT IN (SELECT name FROM pg_available_extensions) ORDER BY 1')
if [ -n "$missing" ]; then
    refuse "Its extensions are not in this stack's PostgreSQL: $(echo $missing). Set samokoder:images.postgres to an" \
        "image that has them"
fi
mend_collations
ask -d "$database" -c "SELECT 'PostgreSQL: ' || count(*) || ' tables in the database $database, '
    || pg_size_pretty(pg_database_size(current_database())) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relkind IN ('r', 'p') AND nspname <> 'information_schema' AND nspname NOT LIKE 'pg\_%'" > /tmp/told
pg_ctl stop --silent --wait --timeout=86400 --mode=fast
# By itself: in a condition a question that fails would be a no.
control=$(LC_ALL=C pg_controldata)
version=$(printf '%s\n' "$control" | sed -n 's/^Data page checksum version: *\([0-9]*\)$/\1/p')
if [ -z "$version" ]; then echo 'pg_controldata does not say whether pages have checksums' >&2 && exit 1; fi
if [ "$version" = 0 ]; then
    echo 'give every page its checksum' >&2
    pg_checksums --enable > /dev/null
fi
cat /tmp/told
