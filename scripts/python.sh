#!/usr/bin/env bash
# Runs a Python that can do what the tests need: 3.10 or newer, with venv.
# The first one on the PATH may be a version manager's that cannot.
set -euo pipefail

for python in python3 /usr/bin/python3 python3.13 python3.12 python3.11 python3.10; do
    if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then
        exec "$python" "$@"
    fi
done
echo "No Python 3.10 or newer with venv; Debian's package is python3-venv." >&2
exit 1
