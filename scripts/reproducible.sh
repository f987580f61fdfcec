#!/usr/bin/env bash
# Builds the same sources twice, in two folders, and compares every byte.
#
#   scripts/reproducible.sh programs   against bin/ if it is of this version, else twice
#   scripts/reproducible.sh page       against web/dist, which is committed
#   scripts/reproducible.sh image      against the image that is there, else twice
#
# COLD=1 compiles the second time of the programs from nothing (some ten minutes)
# instead of linking anew what the build cache has.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

# copy FOLDER: the files that git knows, as they are now, but not their history.
copy() {
    mkdir -p "$1"
    git ls-files -z --cached --others --exclude-standard -- "${@:2}" | while IFS= read -r -d '' file; do
        [ ! -f "$file" ] || printf '%s\0' "$file"
    done | tar --null -T - -c | tar -x -C "$1"
}

# programs FOLDER: builds there, as another user elsewhere might.
build() {
    (
        cd "$1"
        umask 077
        export TZ=Asia/Tokyo LC_ALL=C
        make --no-print-directory build VERSION="$version"
    )
}

version=$(make --no-print-directory version)

case ${1:-} in
programs)
    copy "$work/second/deeper"
    [ -z "${COLD:-}" ] || export GOCACHE=$work/cache
    build "$work/second/deeper"
    unset GOCACHE
    if ! [ -x bin/caesarion ] || ! [ -x bin/caesarion-agent ] || [ "$(bin/caesarion version --json | sed -n 's/.*"version": "\(.*\)".*/\1/p')" != "$version" ]; then
        copy "$work/first"
        build "$work/first"
        first=$work/first/bin
    fi
    for program in caesarion caesarion-agent; do
        if ! cmp "${first:-bin}/$program" "$work/second/deeper/bin/$program"; then
            echo "$program: another build of the same sources has other bytes; is bin/ of these sources (make build)?" >&2
            exit 1
        fi
        sha256sum "${first:-bin}/$program" | sed "s|  .*|  $program $version, built twice|"
    done
    ;;
page)
    copy "$work/elsewhere" web scripts api
    # Links: the packages are the same, their folder is not.
    cp -al web/node_modules "$work/elsewhere/web/"
    rm -rf "$work/elsewhere/web/dist"
    TZ=Asia/Tokyo "$work/elsewhere/scripts/web.sh" build >"$work/log" || { cat "$work/log" >&2; exit 1; }
    diff -rq web/dist "$work/elsewhere/web/dist" || { echo "web/dist is not what another folder's build gives: make web, then look at git diff" >&2; exit 1; }
    find web/dist -type f | LC_ALL=C sort | xargs sha256sum | sha256sum | sed 's|-|web/dist, built twice|'
    ;;
image)
    # image FOLDER: builds the image with a data directory of its own, and prints its digest.
    image() {
        mkdir -p "$1"
        bin/caesarion image build --data-dir "$1" >&2
        bin/caesarion image ls --data-dir "$1" --json | sed -n 's/.*"digest": "\(.*\)".*/\1/p' | head -n 1
    }
    first=$(bin/caesarion image ls --json | sed -n 's/.*"digest": "\(.*\)".*/\1/p' | head -n 1)
    second=$(image "$work/one")
    if [ "$first" != "$second" ]; then
        # Debian has published something since, perhaps: two builds of today.
        first=$second
        second=$(image "$work/two")
    fi
    [ "$first" = "$second" ] || { echo "two builds of the image differ: $first and $second" >&2; exit 1; }
    echo "$second  image python, built twice"
    ;;
*)
    echo "usage: scripts/reproducible.sh programs|page|image" >&2
    exit 2
    ;;
esac
