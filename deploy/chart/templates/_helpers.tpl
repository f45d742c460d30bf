{{- define "labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "meta" -}}
{{ include "labels" . }}
app.kubernetes.io/version: {{ .Values.image.tag | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* what every pod of ours has: no right, no name of a neighbour in its environment, no way to the API of Kubernetes */ -}}
{{- define "pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "rights" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* (dict "chart" . "user" "service" "password" "SERVICE_PASSWORD") */ -}}
{{- define "environment" -}}
{{- $values := .chart.Values -}}
- {name: OG_ENV, value: {{ $values.environment | quote }}}
- {name: OG_STORE__URL, value: {{ printf "%s://%s@%s/%s" $values.store.scheme .user $values.store.host $values.store.database | quote }}}
- name: OG_STORE__PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $values.secret }}, key: {{ .password }}}}
- {name: OG_MLFLOW__TRACKING_URI, value: {{ $values.mlflow.url | quote }}}
- {name: OG_MLFLOW__MODEL, value: {{ $values.mlflow.model | quote }}}
{{- range list "MLFLOW_TRACKING_USERNAME" "MLFLOW_TRACKING_PASSWORD" "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: {{ $values.secret }}, key: {{ . }}, optional: true}}
{{- end }}
{{- if $values.trust }}
- {name: SSL_CERT_FILE, value: /run/trust/trust.pem}
- {name: REQUESTS_CA_BUNDLE, value: /run/trust/trust.pem}
{{- end }}
{{- range $name, $value := $values.settings }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{- define "mounts" -}}
- {name: scratch, mountPath: /tmp, subPath: tmp}
- {name: scratch, mountPath: /home/og, subPath: home}
{{- if .Values.trust }}
- {name: trust, mountPath: /run/trust, readOnly: true}
{{- end }}
{{- end }}

{{- define "volumes" -}}
- name: scratch
  emptyDir: {}
{{- if .Values.trust }}
- name: trust
  configMap: {name: {{ .Values.trust }}}
{{- end }}
{{- end }}

{{- define "pipeline-image" -}}
image: "{{ .Values.image.repository }}-pipeline:{{ .Values.image.tag }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}
