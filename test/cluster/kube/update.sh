#!/bin/bash
# gen.sh KUBE_VERSION : writes go.mod for the all-in-one binary
set -euo pipefail
KV=$1                      # v1.35.4
SV=v0.${KV#v1.}            # v0.35.4
MOD=$(cd / && go mod download -json k8s.io/kubernetes@$KV | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
ETCD=$(sed -n 's#.*go.etcd.io/etcd/client/v3 \(v[^ ]*\).*#\1#p' "$MOD")
{
  echo "module github.com/caesarion/caesarion/test/cluster/kube"
  echo
  grep -E '^go ' "$MOD"
  echo
  grep -E '^godebug ' "$MOD" || true
  echo
  echo "require ("
  echo "	k8s.io/kubernetes $KV"
  echo "	go.etcd.io/etcd/server/v3 $ETCD"
  sed -n 's#^\s*\(k8s.io/[a-z0-9-]*\) => ./staging/.*#\1#p' "$MOD" | while read -r m; do echo "	$m $SV"; done
  # the same pins as upstream, so that MVS cannot drift
  sed -n '/^require (/,/^)/p' "$MOD" | grep -vE '^(require|\))' | grep -vE '\sv0\.0\.0(\s|$)' | sed 's#// indirect##'
  echo ")"
  echo
  echo "replace ("
  sed -n 's#^\s*\(k8s.io/[a-z0-9-]*\) => ./staging/.*#\1#p' "$MOD" | while read -r m; do echo "	$m => $m $SV"; done
  echo ")"
} > go.mod
