#!/usr/bin/env bash
# Runs every fuzz target of the module, one after the other, each for its share
# of a time: fuzz.sh 1m. What is found is kept in testdata/fuzz of its package
# and runs in each ordinary test from then on.
set -euo pipefail
cd "$(dirname "$0")/.."

time=${1:-1m}
case $time in
*h) seconds=$((${time%h} * 3600)) ;;
*m) seconds=$((${time%m} * 60)) ;;
*s) seconds=${time%s} ;;
*)
    echo "fuzz.sh: $time is no time; write 90s, 10m or 1h" >&2
    exit 2
    ;;
esac

mapfile -t targets < <(grep -rnoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' cmd internal test | sed -E 's|/[^/]*:[0-9]+:func |:|' | sort -u)
share=$((seconds / ${#targets[@]}))
[ "$share" -ge 1 ] || share=1
corpus=$PWD/.cache/fuzz # what was found interesting; survives, so that the next run goes on from there
mkdir -p "$corpus"
failed=0 built=
for target in "${targets[@]}"; do
    package=${target%%:*} name=${target##*:}
    if [ "$built" != "$package" ]; then # a package is built once for all its targets
        go test -c -fuzz . -o "$corpus/fuzz.test" "./$package"
        built=$package
    fi
    echo "$target, ${share}s"
    # Only the end is told: a line every 3 s says nothing that matters.
    (cd "$package" && "$corpus/fuzz.test" -test.run '^$' -test.fuzz "^$name\$" -test.fuzztime "${share}s" -test.fuzzminimizetime 5s -test.fuzzcachedir "$corpus/$package" 2>&1) | { grep -v '^fuzz: elapsed' || true; } || failed=1
done
rm -f "$corpus/fuzz.test"
exit $failed
