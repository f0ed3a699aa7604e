#!/bin/sh
# Runs a local script on an agent, as a user and within limits, waits for its end and prints its output.
#
#   examples/curl/script.sh web1 ./deploy.sh nobody
#
# Needs jq or python3 to turn a file into a JSON string.
set -eu
agent=$1 file=$2 user=${3:-}

if command -v jq >/dev/null; then
    content=$(jq --raw-input --slurp . "$file")
else
    content=$(python3 -c 'import json, sys; print(json.dumps(open(sys.argv[1]).read()))' "$file")
fi

call() {
    curl --silent --show-error --fail-with-body --cacert "$PAPRIKA_CA" -H "Authorization: Bearer $PAPRIKA_TOKEN" "$@"
}

# `best_effort` runs it also on a host that cannot enforce the limits; without it such a host refuses.
as=${user:+\"user\": \"$user\",}
id=$(call -H "Content-Type: application/json" \
    --data "{\"operation\": \"script.run\", \"args\": {\"content\": $content}, $as \"timeout\": \"10m\",
             \"limits\": {\"memory\": \"1G\", \"tasks\": 256, \"best_effort\": true}}" \
    "$PAPRIKA_API/agents/$agent/commands" | sed 's/.*"id":[[:space:]]*\([0-9]*\).*/\1/')
call "$PAPRIKA_API/commands/$id/output?stream=stdout&from=0&follow=true"
