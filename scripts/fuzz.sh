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
failed=0
for target in "${targets[@]}"; do
    echo "$target, ${share}s"
    go test -run '^$' -fuzz "^${target##*:}\$" -fuzztime "${share}s" -fuzzminimizetime 5s "./${target%%:*}" || failed=1
done
exit $failed
