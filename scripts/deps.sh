#!/usr/bin/env bash
# Installs what the operating system lacks, and says so. Debian 12 and 13 and
# Ubuntu 24.04. When all is there, apt is not touched.
#
#   scripts/deps.sh run     what the server and building the sandbox image need
#   scripts/deps.sh test    that, and what the tests need
#   scripts/deps.sh kube    what the node of a test cluster needs
#   scripts/deps.sh lint    what the linters need
#   scripts/deps.sh web     what building and testing the page needs
#   scripts/deps.sh e2e     that, and a browser
#   scripts/deps.sh peers   what the peers of the benchmark need
set -euo pipefail

packages=()

# need COMMAND PACKAGE: the package, unless the command is there.
need() { command -v "$1" >/dev/null 2>&1 || packages+=("$2"); }
# need_file FILE PACKAGE: the package, unless the file is there.
need_file() { [ -e "$1" ] || packages+=("$2"); }
# need_ok PACKAGE COMMAND…: the package, unless the command succeeds.
need_ok() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || packages+=("$package")
}

for profile in "${@:-run}"; do
    case $profile in
    run)
        need git git
        need mmdebstrap mmdebstrap
        need gpg gpg
        need_file /usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
        need_file /etc/ssl/certs/ca-certificates.crt ca-certificates
        need python3 python3
        need_ok python3-pip python3 -m pip --version
        ;;
    test)
        need_ok python3-venv scripts/python.sh -c 'import ensurepip, venv'
        need fsck.erofs erofs-utils # looks at the images that we write
        need curl curl              # runs the calls of the documents
        need_file /usr/lib/postgresql postgresql # the database of several replicas
        ;;
    kube)
        need containerd containerd # runc comes with it
        need_file /usr/lib/cni/bridge containernetworking-plugins
        need iptables iptables
        need nft nftables
        need ip iproute2
        need conntrack conntrack
        need nsenter util-linux
        ;;
    lint)
        need shellcheck shellcheck
        ;;
    web)
        need node nodejs
        need npm npm
        ;;
    e2e)
        need node nodejs
        need npm npm
        need chromium chromium
        # Without any font the browser draws boxes, and cells have their own width.
        need_file /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf fonts-dejavu-core
        ;;
    peers)
        need bwrap bubblewrap
        need node nodejs
        need npm npm
        ;;
    *)
        echo "usage: scripts/deps.sh [run|test|kube|lint|web|e2e|peers]..." >&2
        exit 2
        ;;
    esac
done

[ ${#packages[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "This machine lacks: ${packages[*]}" >&2
    echo "Install them as root, then try again:  apt-get install -y ${packages[*]}" >&2
    exit 1
fi
if ! command -v apt-get >/dev/null; then
    echo "This machine lacks: ${packages[*]} (Debian's names), and has no apt-get." >&2
    echo "Install them with its own package manager, then try again." >&2
    exit 1
fi
echo "Installing what this machine lacks: ${packages[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt-get update -q && apt-get install -q -y --no-install-recommends "${packages[@]}"; } >"$log" 2>&1; then
    cat "$log" >&2
    echo "apt-get could not install: ${packages[*]}" >&2
    exit 1
fi
