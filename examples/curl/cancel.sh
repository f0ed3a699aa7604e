#!/bin/sh
# Cancels a command, waits until it is gone and prints it.
#
#   examples/curl/cancel.sh 42 'no longer needed'
set -eu
id=$1 reason=${2:-cancelled with curl}
quoted=$(printf %s "$reason" | sed 's/\\/\\\\/g; s/"/\\"/g')

call() {
    curl --silent --show-error --fail-with-body --cacert "$PAPRIKA_CA" -H "Authorization: Bearer $PAPRIKA_TOKEN" "$@"
}

# 202: its agent must be told. 200: it is cancelled already, or was over before.
call -H "Content-Type: application/json" --data "{\"reason\": \"$quoted\", \"grace\": \"5s\"}" \
    "$PAPRIKA_API/commands/$id/cancel" >/dev/null
call "$PAPRIKA_API/commands/$id?wait=30s"
echo
