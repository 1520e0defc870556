{{- define "edgeserve.name" -}}
{{- if contains "edgeserve" .Release.Name -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-edgeserve" .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "edgeserve.selector" -}}
app.kubernetes.io/name: edgeserve
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "edgeserve.labels" -}}
{{ include "edgeserve.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "edgeserve.tokenSecret" -}}
{{ .Values.token.existingSecret | default (printf "%s-token" (include "edgeserve.name" .)) }}
{{- end -}}

{{- define "edgeserve.keysSecret" -}}
{{ .Values.apiKeys.existingSecret | default (printf "%s-api-keys" (include "edgeserve.name" .)) }}
{{- end -}}

{{- define "edgeserve.pod" -}}
enableServiceLinks: false
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "edgeserve.container" -}}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- define "edgeserve.env" -}}
- {name: EDGESERVE_CONFIG_DIR, value: /etc/edgeserve}
- {name: EDGESERVE_STATE_DIR, value: /var/lib/edgeserve}
- {name: EDGESERVE_MODELS_DIR, value: /srv/edgeserve/models}
- {name: EDGESERVE_DRAIN_SECONDS, value: {{ .Values.drainSeconds | quote }}}
{{- end -}}
