{{- define "scimtail.fullname" -}}
{{- if contains "scimtail" .Release.Name }}{{ .Release.Name | trunc 53 | trimSuffix "-" }}{{ else }}{{ printf "%s-scimtail" .Release.Name | trunc 53 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "scimtail.selector" -}}
app.kubernetes.io/name: scimtail
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "scimtail.labels" -}}
{{ include "scimtail.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "scimtail.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* The alerts know the instances by a job whose name begins with scimtail. */}}
{{- define "scimtail.job" -}}
{{ if hasPrefix "scimtail" .Release.Name }}{{ .Release.Name }}{{ else }}scimtail-{{ .Release.Name }}{{ end }}
{{- end }}

{{- define "scimtail.tokenFile" -}}
{{ .Values.http.tokenFile | default (printf "/run/secrets/%s/%s" .Values.http.tokenSecret.name .Values.http.tokenSecret.key) }}
{{- end }}

{{/* Secrets that are mounted, each once. */}}
{{- define "scimtail.secrets" -}}
{{- $secrets := .Values.secrets }}
{{- if not .Values.http.tokenFile }}{{ $secrets = append $secrets .Values.http.tokenSecret.name }}{{ end }}
{{- $secrets | uniq | toJson }}
{{- end }}

{{/* scimtail.toml. Profiles are relative to /etc/scimtail. */}}
{{- define "scimtail.config" -}}
{{- if regexMatch `(?m)^\s*\[\s*http\s*\]` .Values.config }}{{ fail "config has [http]: the chart writes that table; use the values of `http`" }}{{ end }}
{{- if and .Values.providers (regexMatch `(?m)^\s*\[\s*providers\s*\]` .Values.config) }}{{ fail "config has [providers], and there are values of `providers`: use one of them" }}{{ end -}}
{{ .Values.config | trimSuffix "\n" }}

[http]
listen = "0.0.0.0:{{ .Values.http.port }}"
token_file = "{{ include "scimtail.tokenFile" . }}"
{{- if .Values.providers }}

[providers]
{{- range $name, $_ := .Values.providers }}
{{ $name }} = "service/provider-{{ $name }}.toml"
{{- end }}
{{- end }}
{{- end }}
