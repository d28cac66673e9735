{{- define "patchserve.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "patchserve.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "patchserve.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "patchserve.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "patchserve.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "patchserve.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "patchserve.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* What no schema can say. Included by the Deployment. */}}
{{- define "patchserve.check" -}}
{{- if not (or .Values.tls.existingSecret .Values.server.insecure) -}}
{{- fail "Set tls.existingSecret, or server.insecure=true if a mesh or a proxy encrypts" -}}
{{- end -}}
{{- if and .Values.tls.clientCaKey (not (and .Values.tls.existingSecret .Values.tls.probeSecret)) -}}
{{- fail "tls.clientCaKey needs tls.existingSecret, which contains it, and tls.probeSecret: the probes need a certificate too" -}}
{{- end -}}
{{- with .Values.metrics -}}
{{- if and .enabled .serviceMonitor.enabled $.Values.auth.existingSecret (not .serviceMonitor.tokenSecret) -}}
{{- fail "metrics.serviceMonitor needs its tokenSecret if there is auth.existingSecret: the metrics port wants a token too" -}}
{{- end -}}
{{- end -}}
{{- with .Values.store -}}
{{- if and .url .existingClaim -}}
{{- fail "store.url and store.existingClaim are two places for the references: set one of them" -}}
{{- end -}}
{{- if and (not .url) (or .credentialsSecret .env) -}}
{{- fail "store.credentialsSecret and store.env are for store.url, which is empty" -}}
{{- end -}}
{{- if and (not .url) (or $.Values.autoscaling.enabled (gt (int $.Values.replicas) 1)) -}}
{{- if .existingClaim -}}
{{- fail "More than one server needs store.url: the folder of store.existingClaim belongs to one server at a time" -}}
{{- end -}}
{{- if not $.Values.preload.existingClaim -}}
{{- fail "More than one server needs store.url, where they share their references, or preload.existingClaim" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (not .Values.metrics.enabled) -}}
{{- fail "autoscaling.enabled needs metrics.enabled: it scales on the queue's wait" -}}
{{- end -}}
{{- if and .Values.envoy.enabled (not .Values.envoy.tlsSecret) -}}
{{- fail "envoy.enabled needs envoy.tlsSecret: the certificate that clients see" -}}
{{- end -}}
{{- end -}}

{{/* Of Envoy: its name, and the labels that select it. The servers' labels do not. */}}
{{- define "patchserve.envoyName" -}}
{{- include "patchserve.fullname" . -}}-envoy
{{- end -}}

{{- define "patchserve.envoySelectorLabels" -}}
app.kubernetes.io/name: {{ include "patchserve.envoyName" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "patchserve.envoyLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "patchserve.envoySelectorLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}
