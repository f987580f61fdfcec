{{- define "caesarion.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough for the suffixes that follow it. */}}
{{- define "caesarion.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "caesarion.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "caesarion.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "caesarion.installation" -}}
{{- default .Release.Name .Values.installation | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "caesarion.sandboxNamespace" -}}
{{- default (printf "%s-sandboxes" (.Release.Namespace | trunc 53 | trimSuffix "-")) .Values.sandboxes.namespace.name -}}
{{- end -}}

{{- define "caesarion.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "caesarion.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "caesarion.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ include "caesarion.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: caesarion
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The labels that select a component's pods: (list $ "server"). */}}
{{- define "caesarion.selector" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: {{ include "caesarion.name" $ }}
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* The labels that the server gives its sandboxes. */}}
{{- define "caesarion.sandboxSelector" -}}
app.kubernetes.io/name: caesarion-sandbox
caesarion.dev/installation: {{ include "caesarion.installation" . }}
{{- end -}}

{{- define "caesarion.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag }}{{- end -}}
{{- end -}}
{{- end -}}

{{- define "caesarion.pullSecrets" -}}
{{- with .Values.imagePullSecrets -}}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* What Pod Security "restricted" asks of a pod, and of a container. */}}
{{- define "caesarion.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "caesarion.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Secrets: of the person's making, or the one that is made once. */}}
{{- define "caesarion.generatedSecret" -}}{{ include "caesarion.fullname" . }}-generated{{- end -}}
{{- define "caesarion.tokenSecret" -}}
{{- default (include "caesarion.generatedSecret" .) .Values.auth.existingSecret.name -}}
{{- end -}}
{{- define "caesarion.installationSecret" -}}
{{- default (include "caesarion.generatedSecret" .) .Values.installationSecret.existingSecret.name -}}
{{- end -}}
{{- define "caesarion.tokenKey" -}}
{{- if .Values.auth.existingSecret.name -}}{{ .Values.auth.existingSecret.key }}{{- else -}}token{{- end -}}
{{- end -}}
{{- define "caesarion.installationKey" -}}
{{- if .Values.installationSecret.existingSecret.name -}}{{ .Values.installationSecret.existingSecret.key }}{{- else -}}installation-secret{{- end -}}
{{- end -}}

{{/* The variables that say where the database is. A reference, never the URL. */}}
{{- define "caesarion.databaseEnv" -}}
- name: CAESARION_DATABASE_URL
  valueFrom:
    secretKeyRef:
      {{- if .Values.database.trial.enabled }}
      name: {{ include "caesarion.generatedSecret" . }}
      key: database-url
      {{- else }}
      name: {{ .Values.database.existingSecret.name }}
      key: {{ .Values.database.existingSecret.key }}
      {{- end }}
{{- end -}}

{{/* A hook runs before the trial's PostgreSQL is there, so that it can't be migrated by one. */}}
{{- define "caesarion.migrations" -}}
{{- if and .Values.database.trial.enabled (eq .Values.database.migrations "job") -}}init{{- else -}}{{ .Values.database.migrations }}{{- end -}}
{{- end -}}

{{/* Every name by which the server is called. */}}
{{- define "caesarion.allowedHosts" -}}
{{- $name := include "caesarion.fullname" . -}}
{{- $hosts := list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) (printf "%s.%s.svc.cluster.local" $name .Release.Namespace) -}}
{{- if .Values.ingress.enabled -}}{{- $hosts = concat $hosts .Values.ingress.hosts -}}{{- end -}}
{{- if .Values.httpRoute.enabled -}}{{- $hosts = concat $hosts .Values.httpRoute.hostnames -}}{{- end -}}
{{- concat $hosts .Values.server.allowedHosts | uniq | join "," -}}
{{- end -}}

{{/* Sizes as the server's file has them: 5Gi is 5GiB there. */}}
{{- define "caesarion.bytes" -}}
{{- regexReplaceAll "^([0-9.]+[KMGT]i)$" (toString .) "${1}B" -}}
{{- end -}}

{{/* The pod settings of one template: its own over those for all. (list $ template) */}}
{{- define "caesarion.podTemplate" -}}
{{- $all := (index . 0).Values.sandboxes -}}
{{- $own := default dict (index . 1).kubernetes -}}
{{- $out := dict -}}
{{- $priority := $all.priorityClass.name -}}
{{- if and $all.priorityClass.create (not $priority) -}}{{- $priority = printf "%s-sandboxes" (include "caesarion.fullname" (index . 0)) -}}{{- end -}}
{{- $requests := merge dict (default dict $own.requests) $all.requests -}}
{{- $pairs := list
  (list "runtime_class" $own.runtimeClassName $all.runtimeClassName)
  (list "node_selector" $own.nodeSelector $all.nodeSelector)
  (list "tolerations" $own.tolerations $all.tolerations)
  (list "topology_spread" $own.topologySpreadConstraints $all.topologySpreadConstraints)
  (list "image_pull_secrets" $own.imagePullSecrets $all.imagePullSecrets)
  (list "priority_class" $own.priorityClassName $priority)
  (list "request_memory" $requests.memory "")
  (list "request_cpu" $requests.cpu "")
  (list "request_ephemeral_storage" (index $requests "ephemeral-storage") "")
  (list "deadline" $own.deadline $all.deadline)
  (list "node_lost_after" $own.nodeLostAfter $all.nodeLostAfter)
  (list "home" $own.home "")
  (list "labels" $own.labels $all.labels)
  (list "annotations" $own.annotations $all.annotations) -}}
{{- range $pairs -}}
{{- $value := index . 1 -}}
{{- if kindIs "invalid" $value -}}{{- $value = index . 2 -}}{{- end -}}
{{- if $value -}}{{- $_ := set $out (index . 0) $value -}}{{- end -}}
{{- end -}}
{{- if kindIs "map" (index . 1).network -}}{{- if (index . 1).network.dns -}}{{- $_ := set $out "dns" true -}}{{- end -}}{{- end -}}
{{- toYaml $out -}}
{{- end -}}

{{/* Where the server finds what is given to it by secrets and config maps. */}}
{{- define "caesarion.givenDir" -}}/run/secrets/caesarion/given{{- end -}}

{{/* Their sources, as of a projected volume: nothing where there are none. */}}
{{- define "caesarion.given" -}}
{{- $sources := list -}}
{{- range $p := .Values.auth.providers -}}
{{- with $p.clientSecret -}}
{{- $sources = append $sources (dict "secret" (dict "name" .name "items" (list (dict "key" (default "client-secret" .key) "path" (printf "sign-in/%s" $p.name))))) -}}
{{- end -}}
{{- end -}}
{{- with .Values.egress -}}
{{- range list (list .proxySecret "proxy" "secret") (list .packageIndexSecret "package-index" "secret") (list .caCerts.secret "ca/secret.pem" "secret") (list .caCerts.configMap "ca/configmap.pem" "configMap") -}}
{{- $from := index . 0 -}}
{{- if $from.name -}}
{{- $sources = append $sources (dict (index . 2) (dict "name" $from.name "items" (list (dict "key" $from.key "path" (index . 1))))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $t := .Values.sandboxes.templates -}}
{{- if kindIs "map" $t.network -}}
{{- range $s := $t.network.secrets -}}
{{- $sources = append $sources (dict "secret" (dict "name" $s.secret.name "items" (list (dict "key" (default "value" $s.secret.key) "path" (printf "egress/%s/%s" $name $s.name))))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $sources -}}{{- toYaml $sources -}}{{- end -}}
{{- end -}}

{{/* How people sign in, as the server's file has it. */}}
{{- define "caesarion.signIn" -}}
{{- $root := . -}}
{{- $out := deepCopy .Values.auth.signIn -}}
{{- $providers := list -}}
{{- range $p := .Values.auth.providers -}}
{{- $entry := omit $p "clientSecret" -}}
{{- if $p.clientSecret -}}{{- $entry = set $entry "client_secret_file" (printf "%s/sign-in/%s" (include "caesarion.givenDir" $root) $p.name) -}}{{- end -}}
{{- $providers = append $providers $entry -}}
{{- end -}}
{{- if $providers -}}{{- $_ := set $out "providers" $providers -}}{{- end -}}
{{- toYaml $out -}}
{{- end -}}

{{/* Where browsers come to. */}}
{{- define "caesarion.publicURL" -}}
{{- if .Values.auth.publicURL -}}{{ .Values.auth.publicURL }}
{{- else if .Values.ingress.enabled -}}{{ ternary "https" "http" (gt (len .Values.ingress.tls) 0) }}://{{ first .Values.ingress.hosts }}
{{- else if .Values.httpRoute.enabled -}}https://{{ first .Values.httpRoute.hostnames }}
{{- end -}}
{{- end -}}

{{/* How sandboxes get out, as the server's file has it. */}}
{{- define "caesarion.egress" -}}
{{- $dir := include "caesarion.givenDir" . -}}
{{- $out := dict -}}
{{- with .Values.egress -}}
{{- with .allowPrivate -}}{{- $_ := set $out "allow_private" . -}}{{- end -}}
{{- with .proxy -}}{{- $_ := set $out "proxy" . -}}{{- end -}}
{{- if .proxySecret.name -}}{{- $_ := set $out "proxy_file" (printf "%s/proxy" $dir) -}}{{- end -}}
{{- with .packageIndex -}}{{- $_ := set $out "package_index" . -}}{{- end -}}
{{- if .packageIndexSecret.name -}}{{- $_ := set $out "package_index_file" (printf "%s/package-index" $dir) -}}{{- end -}}
{{- with .packageHosts -}}{{- $_ := set $out "package_hosts" . -}}{{- end -}}
{{- $certs := list -}}
{{- if .caCerts.secret.name -}}{{- $certs = append $certs (printf "%s/ca/secret.pem" $dir) -}}{{- end -}}
{{- if .caCerts.configMap.name -}}{{- $certs = append $certs (printf "%s/ca/configmap.pem" $dir) -}}{{- end -}}
{{- with $certs -}}{{- $_ := set $out "ca_certs" . -}}{{- end -}}
{{- $_ := set $out "cache" (include "caesarion.bytes" .cache.size) -}}
{{- $_ := set $out "max_bytes" (include "caesarion.bytes" .maxBytes) -}}
{{- end -}}
{{- toYaml $out -}}
{{- end -}}

{{/* What a template's sandboxes reach through the server: (list $ name network). Nothing: it does not say. */}}
{{- define "caesarion.network" -}}
{{- $dir := include "caesarion.givenDir" (index . 0) -}}
{{- $name := index . 1 -}}
{{- $net := index . 2 -}}
{{- if kindIs "string" $net -}}{{ toJson $net }}
{{- else if $net -}}
{{- $out := dict -}}
{{- range $key, $setting := dict "allow" "allow" "packages" "packages" "maxConnections" "max_connections" -}}
{{- if hasKey $net $key -}}{{- $_ := set $out $setting (index $net $key) -}}{{- end -}}
{{- end -}}
{{- with $net.maxBytes -}}{{- $_ := set $out "max_bytes" (include "caesarion.bytes" .) -}}{{- end -}}
{{- $secrets := list -}}
{{- range $s := $net.secrets -}}
{{- $secrets = append $secrets (set (omit $s "secret" "plainHTTP") "value_file" (printf "%s/egress/%s/%s" $dir $name $s.name)) -}}
{{- if $s.plainHTTP -}}{{- $_ := set (last $secrets) "plain_http" true -}}{{- end -}}
{{- end -}}
{{- with $secrets -}}{{- $_ := set $out "secrets" . -}}{{- end -}}
{{- if $out -}}{{- toJson $out -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether the server lets any sandbox out. */}}
{{- define "caesarion.letsOut" -}}
{{- $out := ne .Values.egress.network "none" -}}
{{- range $name, $t := .Values.sandboxes.templates -}}
{{- $net := include "caesarion.network" (list $ $name $t.network) -}}
{{- if and $net (ne $net "\"none\"") -}}{{- $out = true -}}{{- end -}}
{{- end -}}
{{- if $out -}}true{{- end -}}
{{- end -}}

{{/* The server's settings file. */}}
{{- define "caesarion.config" -}}
{{- $out := deepCopy .Values.server.config -}}
{{- with .Values.server.models -}}{{- $_ := set $out "models" . -}}{{- end -}}
{{- with .Values.sandboxes.poolNight -}}
{{- if .from -}}
{{- $_ := set $out "pool_night" (printf "%s-%s" .from .to) -}}
{{- $_ := set $out "pool_night_zone" .timeZone -}}
{{- end -}}
{{- end -}}
{{- if ne .Values.auth.mode "token" -}}
{{- $_ := set $out "auth" .Values.auth.mode -}}
{{- with include "caesarion.publicURL" . -}}{{- $_ := set $out "public_url" . -}}{{- end -}}
{{- with include "caesarion.signIn" . | fromYaml -}}{{- $_ := set $out "sign_in" . -}}{{- end -}}
{{- end -}}
{{- with .Values.auth.trustedProxies -}}{{- $_ := set $out "trusted_proxies" . -}}{{- end -}}
{{- with .Values.limits -}}{{- $_ := set $out "limits" . -}}{{- end -}}
{{- if include "caesarion.letsOut" . -}}
{{- $_ := set $out "network" .Values.egress.network -}}
{{- $_ := set $out "egress" (include "caesarion.egress" . | fromYaml) -}}
{{- end -}}
{{- $templates := dict -}}
{{- range $name, $t := .Values.sandboxes.templates -}}
{{- $entry := dict "image" (default (printf "%s@%s" $.Values.sandboxes.image.repository $.Values.sandboxes.image.digest) $t.image) -}}
{{- range $key, $setting := dict "cpus" "cpus" "processes" "processes" "executionTimeout" "execution_timeout" "idleTimeout" "idle_timeout" "lifetime" "lifetime" "poolSize" "pool_size" "preload" "preload" "env" "env" -}}
{{- if hasKey $t $key -}}{{- $_ := set $entry $setting (index $t $key) -}}{{- end -}}
{{- end -}}
{{- with $t.memory -}}{{- $_ := set $entry "memory" (include "caesarion.bytes" .) -}}{{- end -}}
{{- with $t.disk -}}{{- $_ := set $entry "disk" (include "caesarion.bytes" .) -}}{{- end -}}
{{- with include "caesarion.network" (list $ $name $t.network) -}}{{- $_ := set $entry "network" (fromJson (printf "{\"it\": %s}" .)).it -}}{{- end -}}
{{- $_ := set $entry "kubernetes" (include "caesarion.podTemplate" (list $ $t) | fromYaml) -}}
{{- with $t.settings -}}{{- $entry = merge (deepCopy .) $entry -}}{{- end -}}
{{- $_ := set $templates $name $entry -}}
{{- end -}}
{{- $_ := set $out "templates" $templates -}}
{{- toYaml $out -}}
{{- end -}}

{{/* What the schema can't say: values that need each other. */}}
{{- define "caesarion.validate" -}}
{{- $v := .Values -}}
{{- if not $v.image.repository -}}
{{- fail "image.repository is empty: name the image of the server, such as --set image.repository=registry.example.org/caesarion/server" -}}
{{- end -}}
{{- if not (or $v.image.digest $v.image.tag) -}}
{{- fail "image.digest and image.tag are empty: say which image of the repository, best by its digest" -}}
{{- end -}}
{{- range $name, $t := $v.sandboxes.templates -}}
{{- if and (not $t.image) (not (and $v.sandboxes.image.repository $v.sandboxes.image.digest)) -}}
{{- fail (printf "sandboxes.templates.%s has no image, and sandboxes.image has no repository and digest: name the image of the sandboxes" $name) -}}
{{- end -}}
{{- end -}}
{{- if not (hasKey $v.sandboxes.templates "python") -}}
{{- fail "sandboxes.templates has no python: it is the template of callers that name none" -}}
{{- end -}}
{{- range $key, $value := dict "templates" "sandboxes.templates" "models" "server.models" "auth" "auth.mode" "sign_in" "auth.providers and auth.signIn" "public_url" "auth.publicURL" "trusted_proxies" "auth.trustedProxies" "limits" "limits" "network" "egress.network" "egress" "egress" -}}
{{- if hasKey $v.server.config $key -}}
{{- fail (printf "server.config.%s: it is set by the value %s" $key $value) -}}
{{- end -}}
{{- end -}}
{{- if and $v.auth.providers (ne $v.auth.mode "accounts") -}}
{{- fail "auth.providers is for users, whom auth.mode=token does not have: set auth.mode=accounts" -}}
{{- end -}}
{{- range $p := $v.auth.providers -}}
{{- if hasKey $p "client_secret_env" -}}{{- /* by server.extraEnv */ -}}
{{- else if hasKey $p "client_secret_file" -}}
{{- fail (printf "auth.providers: %s has a client_secret_file: name the secret by clientSecret: {name: …, key: …}" $p.name) -}}
{{- else if and $p.clientSecret (not $p.clientSecret.name) -}}
{{- fail (printf "auth.providers: clientSecret of %s has no name: of which secret is it" $p.name) -}}
{{- end -}}
{{- end -}}
{{- range list "proxy" "packageIndex" -}}
{{- if and (index $v.egress .) (index $v.egress (printf "%sSecret" .)).name -}}
{{- fail (printf "egress.%s and egress.%sSecret are both set: choose one" . .) -}}
{{- end -}}
{{- end -}}
{{- range $name, $t := $v.sandboxes.templates -}}
{{- if kindIs "map" $t.network -}}
{{- range $s := $t.network.secrets -}}
{{- if not $s.secret.name -}}
{{- fail (printf "sandboxes.templates.%s.network.secrets: %s has no secret.name: of which secret is its value" $name $s.name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if eq (include "caesarion.sandboxNamespace" .) .Release.Namespace -}}
{{- fail "sandboxes.namespace.name is the release's own namespace: sandboxes need one for themselves, or the server could touch its own pods and secrets" -}}
{{- end -}}
{{- if and (not $v.database.existingSecret.name) (not $v.database.trial.enabled) -}}
{{- fail "database.existingSecret.name is empty: make a secret with the URL of a PostgreSQL database and name it, or try things out with database.trial.enabled=true" -}}
{{- end -}}
{{- if and $v.database.existingSecret.name $v.database.trial.enabled -}}
{{- fail "database.existingSecret.name and database.trial.enabled are both set: choose one" -}}
{{- end -}}
{{- if and $v.database.trial.enabled (not $v.database.trial.image) -}}
{{- fail "database.trial.image is empty: name the PostgreSQL image to try with" -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.ingress.hosts) -}}
{{- fail "ingress.hosts is empty: name the host under which people will call the server" -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not (and $v.httpRoute.parentRefs $v.httpRoute.hostnames)) -}}
{{- fail "httpRoute.parentRefs or httpRoute.hostnames is empty: name the gateway and the host" -}}
{{- end -}}
{{- if and $v.autoscaling.enabled (gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) -}}
{{- fail (printf "autoscaling.minReplicas %d is above maxReplicas %d" (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if and $v.autoscaling.enabled (not (or $v.autoscaling.targetCPU $v.autoscaling.targetMemory $v.autoscaling.executions.enabled)) -}}
{{- fail "autoscaling has nothing to look at: set targetCPU, targetMemory or executions.enabled" -}}
{{- end -}}
{{- if ne (empty $v.sandboxes.poolNight.from) (empty $v.sandboxes.poolNight.to) -}}
{{- fail "sandboxes.poolNight needs both from and to, such as 22:00 and 06:00" -}}
{{- end -}}
{{- if le (int $v.server.terminationGracePeriodSeconds) (int $v.server.preStopSeconds) -}}
{{- fail "server.terminationGracePeriodSeconds has to be above preStopSeconds, or the server is killed before it could give its sessions away" -}}
{{- end -}}
{{- end -}}
