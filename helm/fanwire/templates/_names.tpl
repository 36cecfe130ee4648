{{/* Names, labels and the metadata of every object. */}}

{{- define "fanwire.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* No longer than 52, so that what is put behind it still fits into a name. */}}
{{- define "fanwire.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- default $full .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "fanwire.serviceAccountName" -}}
{{- $default := .Values.serviceAccount.create | ternary (include "fanwire.fullname" .) "default" -}}
{{- default $default .Values.serviceAccount.name -}}
{{- end -}}

{{- define "fanwire.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* By which the pods of a component are found: never changed, for a Deployment's selector cannot be. */}}
{{- define "fanwire.selector" -}}
app.kubernetes.io/name: {{ include "fanwire.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* `root`, `component`, and labels of its own in `labels`. */}}
{{- define "fanwire.labels" -}}
{{- $own := include "fanwire.selector" . | fromYaml -}}
{{- $_ := set $own "app.kubernetes.io/version" (default .root.Chart.AppVersion .root.Values.image.tag | trunc 63) -}}
{{- $_ := set $own "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63) -}}
{{- merge $own (deepCopy (default dict .labels)) (deepCopy .root.Values.commonLabels) | toYaml -}}
{{- end -}}

{{/* `root`, `component`, `name`, and of the object's own values `of.labels` and `of.annotations`; `annotations` go first. */}}
{{- define "fanwire.metadata" -}}
{{- $of := default dict .of -}}
{{- $annotations := merge (deepCopy (default dict .annotations)) (deepCopy (default dict $of.annotations)) (deepCopy .root.Values.commonAnnotations) -}}
name: {{ .name }}
namespace: {{ default .root.Release.Namespace .namespace }}
labels:
  {{- include "fanwire.labels" (dict "root" .root "component" .component "labels" $of.labels) | nindent 2 }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
