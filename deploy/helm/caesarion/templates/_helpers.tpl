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
{{- toYaml $out -}}
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
{{- $templates := dict -}}
{{- range $name, $t := .Values.sandboxes.templates -}}
{{- $entry := dict "image" (default (printf "%s@%s" $.Values.sandboxes.image.repository $.Values.sandboxes.image.digest) $t.image) -}}
{{- range $key, $setting := dict "cpus" "cpus" "processes" "processes" "executionTimeout" "execution_timeout" "idleTimeout" "idle_timeout" "lifetime" "lifetime" "poolSize" "pool_size" "preload" "preload" "env" "env" -}}
{{- if hasKey $t $key -}}{{- $_ := set $entry $setting (index $t $key) -}}{{- end -}}
{{- end -}}
{{- with $t.memory -}}{{- $_ := set $entry "memory" (include "caesarion.bytes" .) -}}{{- end -}}
{{- with $t.disk -}}{{- $_ := set $entry "disk" (include "caesarion.bytes" .) -}}{{- end -}}
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
{{- range list "templates" "models" -}}
{{- if hasKey $v.server.config . -}}
{{- fail (printf "server.config.%s: templates are set by sandboxes.templates, models by server.models" .) -}}
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
