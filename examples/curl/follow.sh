#!/bin/sh
# Shows the standard output of a command while it runs, from an offset, until the stream ends.
#
#   examples/curl/follow.sh 42              from the beginning
#   examples/curl/follow.sh 42 1000         from byte 1000 on
#   examples/curl/follow.sh 42 0 stderr     the other stream
set -eu
id=$1 from=${2:-0} stream=${3:-stdout}

curl --silent --show-error --fail-with-body --no-buffer --cacert "$PAPRIKA_CA" \
    -H "Authorization: Bearer $PAPRIKA_TOKEN" \
    "$PAPRIKA_API/commands/$id/output?stream=$stream&from=$from&follow=true"
