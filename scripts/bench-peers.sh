#!/usr/bin/env bash
# Installs the peers that caesarion bench measures beside itself, from locked
# lists, into a folder. What can't be had here is named with its reason and left
# out; the bench says so too.
#
#   scripts/bench-peers.sh FOLDER
#
# E2B_SOURCE=FOLDER takes a checkout of E2B's code interpreter that is there
# already, for machines that can't reach its repository.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$1
mkdir -p "$folder"
without() { echo "bench-peers: without $1: $2" >&2; }

# jupyter-server and jupyter-kernel-gateway, from PyPI.
scripts/venv.sh "$folder/python" test/peers/requirements.txt

# E2B's server inside its sandboxes: not on PyPI, so the sources at one commit,
# with the packages that its lists name.
e2b_repository=https://github.com/e2b-dev/code-interpreter
e2b_commit=7df1757bfd5baa037f909ce97c2dbe014da973c0
source=$folder/e2b-source
if [ -n "${E2B_SOURCE:-}" ]; then
    ln -sfn "$(realpath "$E2B_SOURCE")" "$source"
elif [ ! -e "$source/template/server/main.py" ]; then
    rm -rf "$source"
    git init --quiet "$source"
    if ! words=$(git -C "$source" fetch --quiet --depth 1 "$e2b_repository" "$e2b_commit" 2>&1 &&
        git -C "$source" checkout --quiet FETCH_HEAD 2>&1); then
        without e2b "its sources could not be fetched: $words"
        rm -rf "$source"
    fi
fi
[ ! -e "$source/template/server/main.py" ] || scripts/venv.sh "$folder/e2b" test/peers/e2b-requirements.txt

# Pyodide, from npm.
if command -v npm >/dev/null; then
    mkdir -p "$folder/pyodide"
    cp test/peers/pyodide.mjs test/peers/package.json test/peers/package-lock.json "$folder/pyodide"
    sum=$(sha256sum <test/peers/package-lock.json)
    if [ "$(cat "$folder/pyodide/.lock-sum" 2>/dev/null)" != "$sum" ]; then
        if npm ci --silent --ignore-scripts --no-audit --no-fund --prefix "$folder/pyodide"; then
            echo "$sum" >"$folder/pyodide/.lock-sum"
        else
            without pyodide "npm ci failed"
        fi
    fi
else
    without pyodide "there is no npm"
fi
