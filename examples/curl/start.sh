#!/bin/sh
# Starts a command on an agent and prints its id.
#
#   . .paprika-dev/env                      (written by `paprika dev`: PAPRIKA_API PAPRIKA_TOKEN PAPRIKA_CA)
#   examples/curl/start.sh dev-1 'uname -a'
set -eu
agent=$1 line=$2

# The line becomes a JSON string: backslashes and quotes are escaped, control characters are not expected here.
quoted=$(printf %s "$line" | sed 's/\\/\\\\/g; s/"/\\"/g')

# The key makes it safe to call again when the answer got lost: the manager then answers with the same command.
key=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')

curl --silent --show-error --fail-with-body --cacert "$PAPRIKA_CA" \
    -H "Authorization: Bearer $PAPRIKA_TOKEN" -H "Content-Type: application/json" -H "Idempotency-Key: $key" \
    --data "{\"operation\": \"command.run\", \"args\": {\"shell\": \"$quoted\"}}" \
    "$PAPRIKA_API/agents/$agent/commands" |
    sed 's/.*"id":[[:space:]]*\([0-9]*\).*/\1/'
