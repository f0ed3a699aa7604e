#!/bin/sh
# Lets a command stand still, or go on, and prints its phase and who wants it so.
#
#   examples/curl/pause.sh 42
#   examples/curl/pause.sh 42 resume
set -eu
id=$1 verb=${2:-pause}

# 202: the wish is on the manager's disk; `"pending":true` until its agent has heard of it.
curl --silent --show-error --fail-with-body --cacert "$PAPRIKA_CA" -H "Authorization: Bearer $PAPRIKA_TOKEN" \
    --request POST "$PAPRIKA_API/commands/$id/$verb"
echo
