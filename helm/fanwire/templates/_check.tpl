{{/* What values mean together: combinations that would do nothing, or harm. The schema has seen to each by itself. */}}

{{- define "fanwire.check" -}}
{{- $config := .Values.config -}}
{{- $broker := include "fanwire.broker" . | trim -}}
{{- $pods := .Values.autoscaling.enabled | ternary .Values.autoscaling.minReplicas (default 1 .Values.replicaCount) | int64 -}}
{{- $podsMax := .Values.autoscaling.enabled | ternary .Values.autoscaling.maxReplicas (default 2 .Values.replicaCount) | int64 -}}

{{- if .Values.existingSecret -}}
{{- range $section, $value := $config -}}
{{- if and $value (not (has $section (list "server" "admin" "log" "metrics" "drain" "adapter" "tls"))) -}}
{{- fail (printf "config.%s: stands beside `existingSecret`, which holds the whole configuration: put it there" $section) -}}
{{- end -}}
{{- end -}}
{{- else if not (or $config.apps (dig "store" "url" "" $config) (include "fanwire.byVariable" (dict "root" . "settings" "APPS.*|STORE(__URL)?"))) -}}
{{- fail "config.apps: is empty, so there is nobody to serve: name an app (id, key, secret), a store (config.store.url), or a Secret with the whole configuration (existingSecret)" -}}
{{- end -}}

{{- include "fanwire.checkApps" . -}}

{{- range $section := list "server" "admin" -}}
{{- $host := dig $section "host" "127.0.0.1" $config -}}
{{- if or (hasPrefix "127." $host) (has $host (list "localhost" "::1" "[::1]")) -}}
{{- fail (printf "config.%s.host: is %s, where nothing outside of the pod can reach it: 0.0.0.0, or :: where there is IPv6" $section $host) -}}
{{- end -}}
{{- if eq 0 (int64 (dig $section "port" 1 $config)) -}}
{{- fail (printf "config.%s.port: is 0, so nobody would know which one it is" $section) -}}
{{- end -}}
{{- end -}}
{{- if not (dig "admin" "enabled" true $config) -}}
{{- fail "config.admin.enabled: is false, but the probes ask the admin port" -}}
{{- end -}}

{{- if dig "tls" "acme" "domains" "" $config -}}
{{- fail "config.tls.acme.domains: is for a single machine; here cert-manager has certificates issued, for `tls.existingSecret` or `ingress.tls`" -}}
{{- end -}}

{{- if .Values.tls.existingSecret -}}
{{- range $key := list "cert_file" "key_file" -}}
{{- if dig "tls" $key "" $config -}}
{{- fail (printf "config.tls.%s: stands beside `tls.existingSecret`, which sets it" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- if and .Values.redis.enabled .Values.nats.enabled -}}
{{- fail "nats.enabled: stands beside `redis.enabled`: nodes have one broker" -}}
{{- end -}}
{{- range $name := list "redis" "nats" -}}
{{- if (index $.Values $name).enabled -}}
{{- $driver := dig "adapter" "driver" "none" $config -}}
{{- if not (has $driver (list "none" $name)) -}}
{{- fail (printf "config.adapter.driver: is %s, but `%s.enabled` runs another broker" $driver $name) -}}
{{- end -}}
{{- range $key := list "url" "urls" "username" "password" "password_file" -}}
{{- if dig $name $key "" $config -}}
{{- fail (printf "config.%s.%s: stands beside `%s.enabled`, which sets it" $name $key $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- $queue := dig "webhooks" "queue" "memory" $config -}}
{{- range $name, $key := dict "redis" "url" "nats" "urls" -}}
{{- if and (has $name (list $broker $queue)) (not (or (index $.Values $name).enabled (dig $name $key "" $config))) -}}
{{- if not (or $.Values.existingSecret (include "fanwire.byVariable" (dict "root" $ "settings" (printf "%s(__%s(__0)?)?" (upper $name) (upper $key))))) -}}
{{- fail (printf "config.%s.%s: is missing, so nobody knows where the broker is that %s asks for: set it, or %s.enabled to try one" $name $key (eq $name $broker | ternary "config.adapter.driver" "config.webhooks.queue") $name) -}}
{{- end -}}
{{- if and $.Values.networkPolicy.enabled $.Values.networkPolicy.egress.enabled (not $.Values.networkPolicy.egress.extra) -}}
{{- fail (printf "networkPolicy.egress.extra: is empty, but where the broker is (%s.%s) does not stand in `config`, so its port would be shut: allow it here" $name $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- if and (gt $podsMax 1) (not $broker) (or .Values.autoscaling.enabled (not (kindIs "invalid" .Values.replicaCount))) -}}
{{- fail (printf "%d pods need a broker, or each would serve its own sockets only: set config.adapter.driver to redis or nats, or redis.enabled to try it" $podsMax) -}}
{{- end -}}

{{- if hasPrefix "sqlite:" (dig "store" "url" "" $config) -}}
{{- if gt $podsMax 1 -}}{{- fail "config.store.url: a file of SQLite cannot be shared by pods" -}}{{- end -}}
{{- if .Values.migrate.enabled -}}{{- fail "migrate.enabled: the Job would not see the pod's file of SQLite: set config.store.migrate_on_start" -}}{{- end -}}
{{- end -}}

{{- with .Values.autoscaling -}}
{{- if .enabled -}}
{{- if gt (int64 .minReplicas) (int64 .maxReplicas) -}}
{{- fail "autoscaling.minReplicas: is above autoscaling.maxReplicas" -}}
{{- end -}}
{{- if not (or .cpu .connections .metrics) -}}
{{- fail "autoscaling: has nothing to go by: set cpu, connections or metrics" -}}
{{- end -}}
{{- if and .cpu (not (dig "requests" "cpu" "" $.Values.resources)) -}}
{{- fail "autoscaling.cpu: is a share of resources.requests.cpu, which is missing" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- with .Values.podDisruptionBudget -}}
{{- if .enabled -}}
{{- $away := kindIs "invalid" .minAvailable | ternary .maxUnavailable nil -}}
{{- if or (has (toString $away) (list "0" "0%")) (eq (toString .minAvailable) "100%") -}}
{{- fail "podDisruptionBudget: lets no pod go, so no machine could ever be drained" -}}
{{- end -}}
{{- if and (not (kindIs "invalid" .minAvailable)) (not (kindIs "string" .minAvailable)) (ge (int64 .minAvailable) $pods) -}}
{{- fail (printf "podDisruptionBudget.minAvailable: is %d of %d pods, so no machine could ever be drained" (int64 .minAvailable) $pods) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- if dig "preStop" "exec" nil .Values.lifecycle -}}
{{- fail "lifecycle.preStop.exec: there is neither a shell nor `sleep` in the image, and the chart would not know how long it takes: use lifecycle.preStop.sleep.seconds, or config.drain.delay_s" -}}
{{- end -}}
{{- if and (not (kindIs "invalid" .Values.terminationGracePeriodSeconds)) (lt (int64 .Values.terminationGracePeriodSeconds) (int64 (include "fanwire.leaving" .))) -}}
{{- fail (printf "terminationGracePeriodSeconds: is %d, but to leave a pod takes up to %s (a sleep in preStop, config.drain.delay_s, config.drain.drain_s, and 20): it would be killed in the middle of it" (int64 .Values.terminationGracePeriodSeconds) (include "fanwire.leaving" .)) -}}
{{- end -}}
{{- if and (not (kindIs "invalid" .Values.progressDeadlineSeconds)) (le (int64 .Values.progressDeadlineSeconds) (int64 (include "fanwire.minReady" .))) -}}
{{- fail (printf "progressDeadlineSeconds: is %d, but each pod has to be ready for minReadySeconds, %s" (int64 .Values.progressDeadlineSeconds) (include "fanwire.minReady" .)) -}}
{{- end -}}
{{- if eq .Values.service.type "ClusterIP" -}}
{{- range $key := list "nodePort" "externalTrafficPolicy" "loadBalancerClass" "loadBalancerSourceRanges" -}}
{{- if index $.Values.service $key -}}
{{- fail (printf "service.%s: means nothing to a service.type of ClusterIP" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.hosts: is empty: name the host that browsers connect to" -}}
{{- end -}}
{{- if and .Values.ingress.enabled .Values.ingress.tls -}}
{{- $covered := list -}}
{{- $everyone := false -}}
{{- range .Values.ingress.tls -}}
{{- if .hosts -}}{{- $covered = concat $covered .hosts -}}{{- else -}}{{- $everyone = true -}}{{- end -}}
{{- end -}}
{{- range .Values.ingress.hosts -}}
{{- if not (or $everyone (has . $covered) (has (regexReplaceAll "^[^.]*" . "*") $covered)) -}}
{{- fail (printf "ingress.tls: has no certificate for %s of ingress.hosts, so browsers would be shown one that they refuse" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs: is empty: name the Gateway" -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled (not .Values.adminService.enabled) -}}
{{- fail "serviceMonitor.enabled: needs adminService.enabled, whose port it scrapes" -}}
{{- end -}}
{{- end -}}

{{/* Apps: the chart has them taken over by pods that run, which refuse what is wrong in their log only, while the next pod does
not start. So what can be said here is said here; `fanwire check-config` knows all of it. */}}
{{- define "fanwire.checkApps" -}}
{{- $ids := dict -}}
{{- $keys := dict -}}
{{- $more := include "fanwire.byVariable" (dict "root" . "settings" "APPS.*") -}}
{{- $encrypted := or (eq (include "fanwire.scheme" .) "https") (dig "server" "trusted_proxies" "" .Values.config) (include "fanwire.byVariable" (dict "root" . "settings" "TLS.*|SERVER(__TRUSTED_PROXIES.*)?")) -}}
{{- range $index, $app := .Values.config.apps -}}
{{- $place := printf "config.apps[%d]" $index -}}
{{- if hasKey $ids $app.id -}}
{{- fail (printf "%s.id: another app has the id %s already" $place $app.id) -}}
{{- end -}}
{{- $_ := set $ids $app.id true -}}

{{- $pairs := list -}}
{{- if or $app.key (not $app.keys) -}}{{- $pairs = append $pairs (dict "place" $place "key" $app) -}}{{- end -}}
{{- range $number, $key := $app.keys -}}
{{- $pairs = append $pairs (dict "place" (printf "%s.keys[%d]" $place $number) "key" $key) -}}
{{- end -}}
{{- range $pairs -}}
{{- if not (or .key.key $more) -}}
{{- fail (printf "%s.key: is missing" .place) -}}
{{- end -}}
{{- if not (or .key.secret .key.secret_file $more) -}}
{{- fail (printf "%s.secret: is missing (or `secret_file`)" .place) -}}
{{- end -}}
{{- if and .key.key (hasKey $keys .key.key) -}}
{{- fail (printf "%s.key: the key %s stands there twice" .place .key.key) -}}
{{- end -}}
{{- $_ := set $keys (default "" .key.key) true -}}
{{- end -}}

{{- if and $app.tls_only (not $encrypted) -}}
{{- fail (printf "%s.tls_only: nobody could connect: the pods speak no TLS (tls.existingSecret), and believe no proxy that could say that it does (config.server.trusted_proxies)" $place) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether variables may bring one of these `settings`, a pattern for what follows `FANWIRE_`: then it is not missing. */}}
{{- define "fanwire.byVariable" -}}
{{- $pattern := printf "^FANWIRE_(%s)$" .settings -}}
{{- if .root.Values.extraEnvFrom -}} yes {{- end -}}
{{- range .root.Values.extraEnv -}}{{- if regexMatch $pattern .name -}} yes {{- end -}}{{- end -}}
{{- end -}}
