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

{{/* What no schema can say. Included by the StatefulSet. */}}
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
{{- if .Values.autoscaling.enabled -}}
{{- if not .Values.metrics.enabled -}}
{{- fail "autoscaling.enabled needs metrics.enabled: it scales on the queue's wait" -}}
{{- end -}}
{{- if not .Values.preload.existingClaim -}}
{{- fail "autoscaling.enabled needs preload.existingClaim: every replica has references of its own, and a new one would have none" -}}
{{- end -}}
{{- end -}}
{{- end -}}
