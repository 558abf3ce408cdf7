#!/bin/sh
# Rendered by Samokoder Platform.
REDISCLI_AUTH=$(cat /tmp/health_password)
export REDISCLI_AUTH
exec redis-cli -e --user samokoder_health "$@" ping
