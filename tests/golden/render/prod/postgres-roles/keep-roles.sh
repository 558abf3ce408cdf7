#!/bin/sh
# Rendered by Samokoder Platform.
set -eu
umask 077
rm -f /tmp/applied
# libpq takes a password file only when it is private, and the mounted one is root's with mode 0444.
password=$(cat /etc/samokoder/superuser_password)
printf 'postgres:5432:*:%s:%s\n' "$SUPERUSER" "$password" > /tmp/pgpass
export PGPASSFILE=/tmp/pgpass
export PGCLIENTENCODING=UTF8 PGOPTIONS='-c search_path=pg_catalog,pg_temp -c role=none -c local_preload_libraries= -c default_transaction_read_only=off -c default_transaction_isolation=read\ committed -c default_transaction_deferrable=off -c statement_timeout=0 -c lock_timeout=0 -c idle_session_timeout=0 -c exit_on_error=off -c standard_conforming_strings=on'
told=
until answer=$(pg_isready --host=postgres); do
    # Who finds the keeper unhealthy finds the reason in its log.
    if [ "$answer" != "$told" ]; then told=$answer && echo "waiting for PostgreSQL: $told"; fi
    sleep 0.5
done
psql --host=postgres --username="$SUPERUSER" --dbname=postgres --no-psqlrc --quiet \
    --set=ON_ERROR_STOP=1 --file=/etc/samokoder/roles.sql
touch /tmp/applied
echo "roles applied"
exec sleep infinity
