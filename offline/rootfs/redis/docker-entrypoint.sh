#!/bin/sh
# Starts Redis in a container: options or a configuration file alone mean redis-server; root gives up its rights.
set -eu

case ${1-} in
  '' | -* | *.conf) set -- redis-server "$@" ;;
esac

if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
  find . \! -user redis -exec chown redis:redis {} +
  exec setpriv --reuid=redis --regid=redis --clear-groups -- "$0" "$@"
fi

umask 0077 # the data files are nobody else's
exec "$@"
