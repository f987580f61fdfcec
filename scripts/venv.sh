#!/usr/bin/env bash
# Makes the virtual environment of the tests from its locked, hashed list, or
# leaves it alone when the list has not changed.
#
#   scripts/venv.sh FOLDER REQUIREMENTS
set -euo pipefail

folder=$1 requirements=$2
stamp=$folder/.requirements.sha256
sum=$(sha256sum <"$requirements")
if [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$sum" ] && "$folder/bin/python" -c '' 2>/dev/null; then
    exit 0
fi
echo "Making the Python environment of the tests in $folder"
rm -rf "$folder"
scripts/python.sh -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --requirement "$requirements"
echo "$sum" >"$stamp"
