#!/bin/sh
# Two executions on one sandbox share a variable, with nothing but curl.
#
#   sh examples/shared_state.sh 'http://127.0.0.1:8000/?token=…'
#
# The argument is the URL that "caesarion serve" prints.
set -eu

[ $# -eq 1 ] || { echo "usage: sh $0 URL-WITH-TOKEN" >&2; exit 2; }
server=${1%%/\?*}
token=${1##*token=}

call() {
    method=$1 path=$2
    shift 2
    curl --fail-with-body --silent --show-error --request "$method" "$server$path" \
        --header "Authorization: Bearer $token" --header 'Content-Type: application/json' "$@"
}

id=$(call POST /v1/sandboxes --data '{}' | sed 's/.*"id": *"\([^"]*\)".*/\1/')
echo "sandbox $id"
trap 'call DELETE "/v1/sandboxes/$id"' EXIT

call POST "/v1/sandboxes/$id/executions" --header 'Accept: application/json' --data '{"code": "x = 41"}' > /dev/null
call POST "/v1/sandboxes/$id/executions" --header 'Accept: application/x-ndjson' --data '{"code": "print(x + 1)"}'
