#!/usr/bin/env bash
# update.sh VERSION DNS HELM: writes go.mod for other versions of Kubernetes, and of
# CoreDNS and helm: those that have the same minor version of k8s.io/client-go in
# their go.mod. Kubernetes' own go.mod requires parts of itself in a version that does not exist, so each of them
# is replaced; all that it pins is required, so that nothing drifts.
set -euo pipefail
version=$1               # v1.35.4
dns=$2 helm=$3           # v1.14.4 v4.1.4
parts=v0.${version#v1.}  # v0.35.4
mod=$(cd / && go mod download -json "k8s.io/kubernetes@$version" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
etcd=$(sed -n 's#.*go.etcd.io/etcd/client/v3 \(v[^ ]*\).*#\1#p' "$mod")
{
  echo "module github.com/caesarion/caesarion/test/cluster/kube"
  echo
  grep -E '^go ' "$mod"
  echo
  grep -E '^godebug ' "$mod" || true
  echo
  echo "require ("
  echo "	k8s.io/kubernetes $version"
  echo "	go.etcd.io/etcd/server/v3 $etcd"
  sed -n 's#^\s*\(k8s.io/[a-z0-9-]*\) => ./staging/.*#\1#p' "$mod" | while read -r m; do echo "	$m $parts"; done
  # the same pins as upstream, so that MVS cannot drift
  sed -n '/^require (/,/^)/p' "$mod" | grep -vE '^(require|\))' | grep -vE '\sv0\.0\.0(\s|$)' | sed 's#// indirect##'
  echo ")"
  echo
  echo "replace ("
  sed -n 's#^\s*\(k8s.io/[a-z0-9-]*\) => ./staging/.*#\1#p' "$mod" | while read -r m; do echo "	$m => $m $parts"; done
  echo ")"
} > go.mod
go get "github.com/coredns/coredns@$dns"
go get -tool "helm.sh/helm/v4/cmd/helm@$helm"
etcd=$(go list -m -f '{{.Version}}' go.etcd.io/etcd/client/v3)
go get "go.etcd.io/etcd/server/v3@$etcd"
go mod tidy
