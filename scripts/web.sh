#!/usr/bin/env bash
# Runs one of the scripts of web/package.json, with a Node that is new enough
# and the packages of the lock file:
#
#   scripts/web.sh SCRIPT [ARGUMENT...]
#   scripts/web.sh install      only installs the packages
#
# Debian 12 has Node 18, the page's tools want 20.19 or newer. Where the
# system's is older, a newer one comes as an npm package and stays in .cache.
set -euo pipefail
cd "$(dirname "$0")/.."

new_enough() { "$1" -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' 2>/dev/null; }

if ! new_enough node; then
    case $(uname -m) in aarch64) cpu=arm64 ;; *) cpu=x64 ;; esac
    bin=$PWD/.cache/node/node_modules/node-linux-$cpu/bin
    if ! new_enough "$bin/node"; then
        echo "Node $(node --version 2>/dev/null || echo none) is too old for the page's tools; fetching Node 24"
        mkdir -p .cache/node
        cp scripts/node/package.json scripts/node/package-lock.json .cache/node
        npm ci --silent --no-fund --no-audit --ignore-scripts --prefix .cache/node
    fi
    export PATH=$bin:$PATH
fi

# install FOLDER: the packages, unless the lock file is the one they came from.
install() {
    local sum
    sum=$(sha256sum "$1/package-lock.json")
    if [ "$(cat "$1/node_modules/.lock-sum" 2>/dev/null)" != "$sum" ]; then
        echo "Installing the packages of $1"
        npm ci --silent --no-fund --no-audit --ignore-scripts --prefix "$1"
        echo "$sum" >"$1/node_modules/.lock-sum"
    fi
}

install web
[ "$1" != install ] || exit 0
[ "$1" != generate ] || install web/scripts/openapi
cd web
case ${CI:+$1} in
    test | e2e)
        # .ci/run adds up what the runners counted.
        status=0
        report=$PWD/../.cache/web-$1.json
        rm -f "$report"
        npm run --silent "$1" -- --reporter=default --reporter=json --outputFile.json="$report" "${@:2}" || status=$?
        node -e 'const r = JSON.parse(require("fs").readFileSync(process.argv[1])); console.log(r.numPassedTests, r.numFailedTests + r.numPendingTests)' "$report" >>../.cache/counts
        exit $status
        ;;
esac
exec npm run --silent "$1" -- "${@:2}"
