#!/bin/sh
# Rendered by stack/app/postgres_roles.py.
set -eu
umask 077
rm -f /tmp/applied
# libpq takes a password file only when it is private, and the mounted one is root's with mode 0444.
password=$(cat /etc/samokoder/superuser_password)
printf 'postgres:5432:*:%s:%s\n' "$SUPERUSER" "$password" > /tmp/pgpass
export PGPASSFILE=/tmp/pgpass
until pg_isready --quiet --host=postgres; do sleep 0.5; done
psql --host=postgres --username="$SUPERUSER" --dbname=postgres --no-psqlrc --quiet \
    --set=ON_ERROR_STOP=1 --file=/etc/samokoder/roles.sql
touch /tmp/applied
echo "roles applied"
exec sleep infinity
