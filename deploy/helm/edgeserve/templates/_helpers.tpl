{{- /* 46 letters: a StatefulSet's name may have 52, as its pods have it with a hash in a
label. No dot, which a release may have and a Service may not. */ -}}
{{- define "edgeserve.name" -}}
{{- $name := .Release.Name | replace "." "-" -}}
{{- $name = contains "edgeserve" $name | ternary $name (printf "%s-edgeserve" $name) -}}
{{ $name | trunc 46 | trimAll "-" }}
{{- end -}}

{{- /* More arguments. Those that the chart has to know are refused. */ -}}
{{- define "edgeserve.args" -}}
{{- range .args }}
{{- if regexMatch "^--(host|port|drain-seconds)(=|$)" . }}
{{- fail (printf "%s.args: %s is set by the chart; see values.yaml" $.what .) }}
{{- end }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{- /* An image by its digest, else by its tag; `own` are values before the chart's. */ -}}
{{- define "edgeserve.image" -}}
{{- $shared := .root.Values.image }}
{{- $own := .own | default dict }}
{{- $name := $own.repository | default $shared.repository }}
{{- $digest := $own.digest }}
{{- if not (or $own.repository $own.tag $digest) }}
{{- $digest = $shared.digest }}
{{- end }}
{{- if $digest }}
{{- printf "%s@%s" $name $digest }}
{{- else }}
{{- printf "%s:%s" $name ($own.tag | default $shared.tag | default .root.Chart.AppVersion) }}
{{- end }}
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
- {name: EDGESERVE_MODELS_DIR, value: /srv/edgeserve/models}
- {name: EDGESERVE_DRAIN_SECONDS, value: {{ .Values.drainSeconds | quote }}}
{{- end -}}
