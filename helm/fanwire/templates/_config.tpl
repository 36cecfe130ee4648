{{/* What the chart reads out of `config`, and what it adds to it by the environment. */}}

{{- define "fanwire.port" -}}
{{- dig "server" "port" 6001 .Values.config | int64 -}}
{{- end -}}

{{/* What is spoken on it, which is also its name: TLS where there is a certificate, in a Secret or in a file of `config`. */}}
{{- define "fanwire.scheme" -}}
{{- or .Values.tls.existingSecret (dig "tls" "cert_file" "" .Values.config) | empty | ternary "http" "https" -}}
{{- end -}}

{{- define "fanwire.adminPort" -}}
{{- dig "admin" "port" 9601 .Values.config | int64 -}}
{{- end -}}

{{- define "fanwire.pathPrefix" -}}
{{- dig "server" "path_prefix" "" .Values.config -}}
{{- end -}}

{{/* The name of the broker, or nothing. */}}
{{- define "fanwire.broker" -}}
{{- $driver := dig "adapter" "driver" "none" .Values.config -}}
{{- if .Values.redis.enabled -}} redis
{{- else if .Values.nats.enabled -}} nats
{{- else if ne $driver "none" -}} {{ $driver }}
{{- end -}}
{{- end -}}

{{/* Seconds in which a pod sends its sockets away. */}}
{{- define "fanwire.drain" -}}
{{- add (dig "drain" "delay_s" 0 .Values.config) (dig "drain" "drain_s" 10 .Values.config) -}}
{{- end -}}

{{/* Seconds that leaving takes at most: see docs/rolling-deploys.md for the 20. */}}
{{- define "fanwire.leaving" -}}
{{- add (include "fanwire.drain" .) (dig "preStop" "sleep" "seconds" 0 .Values.lifecycle) 20 -}}
{{- end -}}

{{/* That, and a little for what is before the signal. */}}
{{- define "fanwire.grace" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds -}}
{{- add (include "fanwire.leaving" .) 5 -}}
{{- else -}}
{{- .Values.terminationGracePeriodSeconds | int64 -}}
{{- end -}}
{{- end -}}

{{- define "fanwire.minReady" -}}
{{- kindIs "invalid" .Values.minReadySeconds | ternary (include "fanwire.drain" .) .Values.minReadySeconds | int64 -}}
{{- end -}}

{{/* A whole number is written as one, however large: as text it would come as 6.7108864e+07. */}}
{{- define "fanwire.text" -}}
{{- if kindIs "float64" . -}} {{ int64 . }}
{{- else if or (kindIs "slice" .) (kindIs "map" .) -}} {{ toJson . }}
{{- else -}} {{ toString . }}
{{- end -}}
{{- end -}}

{{/* The variables of Fanwire: where its configuration is, what stands beside an `existingSecret`, and what the user adds. */}}
{{- define "fanwire.env" -}}
- name: FANWIRE_CONFIG
  value: /etc/fanwire/config/{{ empty .Values.existingSecret | ternary "fanwire.json" .Values.existingSecretKey }}
{{- if .Values.existingSecret }}
{{- range $section := list "server" "admin" "log" "metrics" "drain" "adapter" "tls" }}
{{- range $key, $value := index $.Values.config $section }}
{{- if not (kindIs "invalid" $value) }}
- name: FANWIRE_{{ upper $section }}__{{ upper $key }}
  value: {{ include "fanwire.text" $value | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The variables that only a server needs: what the chart runs beside it, and its certificate. */}}
{{- define "fanwire.serverEnv" -}}
{{- if .Values.tls.existingSecret }}
- name: FANWIRE_TLS__CERT_FILE
  value: /etc/fanwire/tls/tls.crt
- name: FANWIRE_TLS__KEY_FILE
  value: /etc/fanwire/tls/tls.key
{{- end }}
{{- if .Values.redis.enabled }}
- name: FANWIRE_ADAPTER__DRIVER
  value: redis
- name: FANWIRE_REDIS__URL
  value: redis://{{ include "fanwire.fullname" . }}-redis:6379
{{- if .Values.redis.password }}
- name: FANWIRE_REDIS__PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ include "fanwire.fullname" . }}-redis, key: password}
{{- end }}
{{- end }}
{{- if .Values.nats.enabled }}
- name: FANWIRE_ADAPTER__DRIVER
  value: nats
- name: FANWIRE_NATS__URLS
  value: '["nats://{{ include "fanwire.fullname" . }}-nats:4222"]'
{{- if .Values.nats.password }}
- name: FANWIRE_NATS__USERNAME
  value: fanwire
- name: FANWIRE_NATS__PASSWORD
  valueFrom:
    secretKeyRef: {name: {{ include "fanwire.fullname" . }}-nats, key: password}
{{- end }}
{{- end }}
{{- end -}}

{{/* Where the container finds its files. Whole folders: a file mounted by `subPath` never changes. */}}
{{- define "fanwire.mounts" -}}
- name: config
  mountPath: /etc/fanwire/config
  readOnly: true
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* `root`, and the `secret` that holds the configuration. */}}
{{- define "fanwire.volumes" -}}
- name: config
  secret:
    secretName: {{ default .secret .root.Values.existingSecret }}
    # For the group of the pod (`fsGroup`) only: 0440.
    defaultMode: 288
{{- with .root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The ports of what `config` leads to: brokers, store and webhooks. In JSON. */}}
{{- define "fanwire.portsOut" -}}
{{- $ports := dict -}}
{{- $default := dict "redis" "6379" "rediss" "6379" "redis-sentinel" "26379" "rediss-sentinel" "26379" "redis-cluster" "6379" "rediss-cluster" "6379" "nats" "4222" "tls" "4222" "postgres" "5432" "postgresql" "5432" "mysql" "3306" "mariadb" "3306" "http" "80" "https" "443" -}}
{{- $urls := list -}}
{{- $queue := dig "webhooks" "queue" "memory" .Values.config -}}
{{- $used := list (include "fanwire.broker" .) $queue -}}
{{- if has "redis" $used -}}
{{- $url := .Values.redis.enabled | ternary "redis://bundled:6379" (dig "redis" "url" "" .Values.config) -}}
{{- $urls = append $urls $url -}}
{{- if contains "-sentinel://" $url -}}{{- $_ := set $ports "6379" true -}}{{- end -}}
{{- end -}}
{{- if has "nats" $used -}}
{{- $urls = concat $urls (.Values.nats.enabled | ternary (list "nats://bundled:4222") (dig "nats" "urls" list .Values.config)) -}}
{{- end -}}
{{- $urls = append $urls (dig "store" "url" "" .Values.config) -}}
{{- range dig "apps" list .Values.config -}}
{{- range .webhooks -}}{{- $urls = append $urls .url -}}{{- end -}}
{{- end -}}
{{- range $urls -}}
{{- $scheme := regexFind "^[a-z-]+" . -}}
{{- range regexReplaceAll "^[a-z-]+://(?:[^@/]*@)?([^/?#]*).*$" . "${1}" | splitList "," -}}
{{- $port := regexFind ":[0-9]+$" . | trimPrefix ":" | default (get $default $scheme) -}}
{{- if $port -}}{{- $_ := set $ports $port true -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- keys $ports | sortAlpha | toJson -}}
{{- end -}}
