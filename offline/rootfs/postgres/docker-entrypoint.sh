#!/bin/bash
# First start of PostgreSQL in a container, with the settings of the official image.
#
# A new database is made in a folder beside its final place, completely (initdb, roles, init scripts, a clean
# shutdown), marked complete, and only then moved into place, PG_VERSION last. So a start that was killed in the
# middle begins again or finishes the move; it never serves half a database.
set -Eeuo pipefail
shopt -s nullglob dotglob

readonly staging_name=.samokoder-initialising
readonly socket_folder=/var/run/postgresql
readonly complete_mark=samokoder-complete
readonly init_access=samokoder-init-access

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
fail() { say "$*"; exit 1; }

# setting NAME DEFAULT: the value of NAME, or of the file that NAME_FILE names. Never exported: a password that
# came as a file does not get into any process's environment.
setting() {
  local name=$1 file_name=${1}_FILE
  if [[ -n ${!name-} && -n ${!file_name-} ]]; then fail "both $name and $file_name are set: give one"; fi
  if [[ -n ${!file_name-} ]]; then
    [[ -r ${!file_name} ]] || fail "$file_name names ${!file_name}, which cannot be read"
    printf '%s' "$(<"${!file_name}")"
  else
    printf '%s' "${!name-$2}"
  fi
}

temporary_server() {
  local data=$1
  shift
  # No TCP and a socket folder of its own, so that neither a client nor a health check meets a half-made
  # database. Whoever reaches that socket is already inside.
  # The last -c wins, so that a given configuration or host file cannot lead elsewhere.
  printf 'local all all trust\n' >"$data/$init_access"
  pg_ctl --pgdata="$data" --wait --timeout=86400 --silent start --options="$(printf '%q ' "$@" \
    -c "data_directory=$data" -c "hba_file=$data/$init_access" -c listen_addresses= \
    -c "unix_socket_directories=$PGHOST" -p "${PGPORT:-5432}")"
}

run_init_file() {
  local file=$1
  case $file in
    *.sh)
      say "running $file"
      # shellcheck disable=SC1090
      if [[ -x $file ]]; then "$file"; else . "$file"; fi
      ;;
    *.sql) say "running $file"; psql_init <"$file" ;;
    *.sql.gz) say "running $file"; gunzip --stdout "$file" | psql_init ;;
    *) say "ignoring $file" ;;
  esac
}

psql_init() {
  psql --no-psqlrc --no-password --quiet --set=ON_ERROR_STOP=1 --username="$user" --dbname="$database" "$@"
}

initialise() {
  local final=$PGDATA staging=$PGDATA/$staging_name password auth initdb_args
  user=$(setting POSTGRES_USER postgres)
  database=$(setting POSTGRES_DB "$user")
  password=$(setting POSTGRES_PASSWORD '')
  export POSTGRES_USER=$user POSTGRES_DB=$database # init scripts know them by these names
  auth=${POSTGRES_HOST_AUTH_METHOD:-}
  initdb_args=$(setting POSTGRES_INITDB_ARGS '')
  if [[ -z $password && $auth != trust ]]; then
    fail "a new database needs a password for its superuser: set POSTGRES_PASSWORD_FILE (or POSTGRES_PASSWORD)"
  fi

  for entry in "$final"/*; do
    case ${entry##*/} in
      "$staging_name" | lost+found) ;;
      *) fail "$final holds ${entry##*/} but no PG_VERSION: that is no database. Give an empty volume" ;;
    esac
  done
  # An interrupted start has left its write-ahead log elsewhere.
  if [[ -L $staging/pg_wal ]]; then rm -rf -- "$(readlink -- "$staging/pg_wal")"/*; fi
  rm -rf -- "$staging"
  mkdir -m 0700 -- "$staging"
  trap 'pg_ctl --pgdata="$staging" --mode=immediate --silent stop || true; exit 130' INT TERM

  if [[ -n ${POSTGRES_INITDB_WALDIR:-} ]]; then initdb_args+=" --waldir=$POSTGRES_INITDB_WALDIR"; fi
  # The arguments are words, quoted as in a shell: POSTGRES_INITDB_ARGS="--data-checksums --locale=C.UTF-8".
  eval "initdb --pgdata=\"\$staging\" --username=\"\$user\" --pwfile=<(printf '%s\n' \"\$password\") $initdb_args"
  if [[ -z $auth ]]; then auth=$(postgres -D "$staging" -C password_encryption "$@"); fi
  printf '\nhost all all all %s\n' "$auth" >>"$staging/pg_hba.conf"

  rm -rf -- "$socket_folder"/samokoder-init.*
  PGHOST=$(mktemp --directory --tmpdir="$socket_folder" samokoder-init.XXXXXX)
  export PGHOST PGDATA=$staging
  temporary_server "$staging" "$@"
  if [[ $database != postgres ]]; then
    psql --no-psqlrc --no-password --quiet --set=ON_ERROR_STOP=1 --username="$user" --dbname=postgres \
      --set=name="$database" <<<'CREATE DATABASE :"name";'
  fi
  for file in /docker-entrypoint-initdb.d/*; do run_init_file "$file"; done
  pg_ctl --pgdata="$staging" --mode=fast --wait --timeout=86400 --silent stop
  rm -f -- "$staging/$init_access"
  rm -rf -- "$PGHOST"
  unset PGHOST
  export PGDATA=$final
  trap - INT TERM
  sync
  : >"$staging/$complete_mark"
  sync -- "$staging/$complete_mark" "$staging"
}

move_into_place() {
  local staging=$PGDATA/$staging_name entry
  for entry in "$staging"/*; do
    case ${entry##*/} in
      PG_VERSION | "$complete_mark") ;;
      *) mv -T -- "$entry" "$PGDATA/${entry##*/}" ;;
    esac
  done
  sync
  [[ ! -e $staging/PG_VERSION ]] || mv -T -- "$staging/PG_VERSION" "$PGDATA/PG_VERSION"
  rm -rf -- "$staging"
  sync -- "$PGDATA"
  say "the new database is in place"
}

if [[ $# -eq 0 || ${1:0:1} == - ]]; then set -- postgres "$@"; fi

if [[ $1 == postgres ]]; then
  asks_only=
  for word in "${@:2}"; do
    case $word in -\? | --help | --describe-config | -V | --version | -C) asks_only=yes ;; esac
  done
  if [[ -z $asks_only ]]; then
    if [[ $(id -u) == 0 ]]; then
      mkdir -p -- "$PGDATA" "$socket_folder"
      find "$PGDATA" "$socket_folder" \! -user postgres -exec chown postgres:postgres {} +
      exec setpriv --reuid=postgres --regid=postgres --init-groups -- "${BASH_SOURCE[0]}" "$@"
    fi
    mkdir -p -- "$PGDATA"
    chmod 0700 -- "$PGDATA" || true # someone else's folder: the server says so itself
    if [[ ! -s $PGDATA/PG_VERSION ]]; then
      [[ -e $PGDATA/$staging_name/$complete_mark ]] || initialise "${@:2}"
      move_into_place
    fi
  fi
fi

exec "$@"
