{{- define "bridge.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* The name of nearly everything. 50 characters leave room for suffixes. */}}
{{- define "bridge.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "bridge.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "bridge.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "bridge.selector" -}}
app.kubernetes.io/name: {{ include "bridge.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* What selects the members, but neither the replay nor the test. */}}
{{- define "bridge.members" -}}
{{ include "bridge.selector" . }}
app.kubernetes.io/component: member
{{- end -}}

{{- define "bridge.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "bridge.selector" . }}
app.kubernetes.io/version: {{ default .Chart.AppVersion .Values.image.tag | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The line and the block of an object's annotations; nothing without any. */}}
{{- define "bridge.annotations" -}}
{{- with .Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What pods carry: nothing that changes with the chart's version and would restart them. */}}
{{- define "bridge.podLabels" -}}
{{ include "bridge.selector" . }}
{{- with merge (dict) .Values.podLabels .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "bridge.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{- $tag := default .Chart.AppVersion .Values.image.tag -}}
{{- if not (or .Values.image.allowMutableTag (regexMatch "[0-9]" $tag)) -}}
{{- fail (printf "image.tag is %q, which is no version, so two pods could run different images: set image.tag to a version such as v1.2.3, set image.digest, or accept it with image.allowMutableTag=true" $tag) -}}
{{- end -}}
{{ .Values.image.repository }}:{{ $tag }}
{{- end -}}
{{- end -}}

{{- define "bridge.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "bridge.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* What the mounts decide of the section zerobus: nothing where all integrations are installed. */}}
{{- define "bridge.credential" -}}
{{- if .Values.zerobus.tokenExchange.enabled -}}
token_exchange: {token_file: /etc/bridge/zerobus-token/token}
{{- else if include "bridge.zerobusSecret" . -}}
client_secret_file: /etc/bridge/zerobus/{{ .Values.zerobus.key }}
{{- end -}}
{{- end -}}

{{/* The Secret of the service principal; empty without one. */}}
{{- define "bridge.zerobusSecret" -}}
{{- if .Values.zerobus.existingSecret -}}
{{- .Values.zerobus.existingSecret -}}
{{- else if not (or .Values.zerobus.tokenExchange.enabled (and .Values.admin.enabled (not (dig "zerobus" "table" "" .Values.config)))) -}}
{{- required "zerobus.existingSecret: name the Secret that holds the OAuth secret of the service principal; kubectl create secret generic zerobus --from-file=client-secret makes one" .Values.zerobus.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* config.yaml: the user's keys, and over them those that the chart's mounts decide. */}}
{{- define "bridge.config" -}}
{{- $own := dict
  "integrations_dir" "/etc/bridge/integrations"
  "ops" (merge (dict "address" ":9400" "peers" (list (printf "%s:9400" (include "bridge.fullname" .)))) (ternary (dict "token_file" (printf "/etc/bridge/ops/%s" .Values.ops.key)) dict (ne .Values.ops.existingSecret "")))
  "zerobus" (include "bridge.credential" . | fromYaml) -}}
{{- if .Values.blueprint -}}
{{- $_ := set $own "mapping" (dict "blueprint" "/etc/bridge/blueprint/blueprint.yaml") -}}
{{- end -}}
{{- $kafka := dict -}}
{{- if .Values.kafka.existingSecret -}}
{{- $file := printf "/etc/bridge/kafka/%s" .Values.kafka.key -}}
{{- $mechanism := dig "kafka" "sasl" "mechanism" "none" .Values.config | toString | lower -}}
{{- if eq $mechanism "oauthbearer" -}}
{{- $_ := set $kafka "sasl" (dict "oauth" (dict "client_secret_file" $file)) -}}
{{- else -}}
{{- $_ := set $kafka "sasl" (dict "password_file" $file) -}}
{{- end -}}
{{- end -}}
{{- if .Values.kafka.tlsSecret -}}
{{- $tls := dict "enabled" true -}}
{{- if .Values.kafka.tlsCA -}}{{- $_ := set $tls "ca_file" "/etc/bridge/kafka-tls/ca.crt" -}}{{- end -}}
{{- if .Values.kafka.tlsClient -}}
{{- $_ := set $tls "cert_file" "/etc/bridge/kafka-tls/tls.crt" -}}
{{- $_ := set $tls "key_file" "/etc/bridge/kafka-tls/tls.key" -}}
{{- end -}}
{{- $_ := set $kafka "tls" $tls -}}
{{- end -}}
{{- if $kafka -}}{{- $_ := set $own "kafka" $kafka -}}{{- end -}}
{{- with .Values.admin -}}
{{- if .enabled -}}
{{- $admin := dict "enabled" true "address" ":8084" -}}
{{- if .key -}}{{- $_ := set $admin "token_file" (printf "/etc/bridge/admin/%s" .key) -}}{{- end -}}
{{- if .jwksKey -}}{{- $_ := set $admin "jwks_file" (printf "/etc/bridge/admin/%s" .jwksKey) -}}{{- end -}}
{{- if .tlsSecret -}}
{{- $_ := set $admin "tls_cert_file" "/etc/bridge/admin-tls/tls.crt" -}}
{{- $_ := set $admin "tls_key_file" "/etc/bridge/admin-tls/tls.key" -}}
{{- end -}}
{{- $_ := set $own "admin" $admin -}}
{{- $keys := list -}}
{{- range .storeKeys -}}{{- $keys = append $keys (printf "/etc/bridge/store/%s" .) -}}{{- end -}}
{{- $_ := set $own "store" (dict "keys" $keys) -}}
{{- end -}}
{{- end -}}
{{- mergeOverwrite (deepCopy .Values.config) $own | toYaml -}}
{{- end -}}

{{/* The files of the folders that running pods reload, by folder. Both are always mounted, so that the first file needs no restart. */}}
{{- define "bridge.files" -}}
{{- $blueprints := deepCopy .Values.blueprints -}}
{{- with .Values.blueprint -}}{{- $_ := set $blueprints "blueprint.yaml" . -}}{{- end -}}
{{- $folders := dict "blueprint" $blueprints -}}
{{- if not .Values.existingIntegrationsConfigMap -}}
{{- $integrations := dict -}}
{{- range $slug, $overlay := .Values.integrations -}}
{{- $_ := set $integrations (printf "%s.yaml" $slug) (dict $slug $overlay | toYaml) -}}
{{- end -}}
{{- $_ := set $folders "integrations" $integrations -}}
{{- end -}}
{{- $folders | toYaml -}}
{{- end -}}

{{/* A memory quantity of Mi or Gi, in MiB. */}}
{{- define "bridge.mebibytes" -}}
{{- if hasSuffix "Gi" . -}}{{ mul 1024 (trimSuffix "Gi" . | int) }}{{- else -}}{{ trimSuffix "Mi" . | int }}{{- end -}}
{{- end -}}

{{/* GOMEMLIMIT in MiB. */}}
{{- define "bridge.goMemLimit" -}}
{{- div (mul (include "bridge.mebibytes" .Values.resources.limits.memory | int) .Values.goMemLimitPercent) 100 -}}
{{- end -}}

{{/* A duration of the bridge's, such as 1m30s, in whole seconds, rounded up; empty if it is none. */}}
{{- define "bridge.seconds" -}}
{{- if regexMatch "^([0-9]+(\\.[0-9]+)?(h|m|s|ms))+$" . -}}
{{- $seconds := 0.0 -}}
{{- range regexFindAll "[0-9]+(\\.[0-9]+)?(ms|h|m|s)" . -1 -}}
{{- $number := regexFind "^[0-9.]+" . | float64 -}}
{{- $seconds = addf $seconds (mulf $number (get (dict "h" 3600.0 "m" 60.0 "s" 1.0 "ms" 0.001) (regexFind "[hms]+$" .))) -}}
{{- end -}}
{{- ceil $seconds | int64 -}}
{{- end -}}
{{- end -}}

{{/* A size of the bridge's, such as 64MiB, in whole MiB; empty if it is none. */}}
{{- define "bridge.sizeMebibytes" -}}
{{- if regexMatch "^[0-9]+ *([KMG]iB|[kMG]B|B)?$" . -}}
{{- $factors := dict "" 1 "B" 1 "KiB" 1024 "MiB" 1048576 "GiB" 1073741824 "kB" 1000 "MB" 1000000 "GB" 1000000000 -}}
{{- div (mul (regexFind "^[0-9]+" . | int64) (get $factors (regexFind "[A-Za-z]*$" .))) 1048576 -}}
{{- end -}}
{{- end -}}

{{- define "bridge.env" -}}
{{- $own := false -}}
{{- range .Values.extraEnv -}}{{- if eq .name "GOMEMLIMIT" -}}{{- $own = true -}}{{- end -}}{{- end -}}
{{- if and .Values.goMemLimitPercent (not $own) -}}
- name: GOMEMLIMIT
  value: {{ include "bridge.goMemLimit" . }}MiB
{{- end }}
{{- if .Values.ops.existingSecret }}
- name: BRIDGE_OPS_TOKEN_FILE # for kubectl exec ... /bridge status
  value: /etc/bridge/ops/{{ .Values.ops.key }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Where the members are placed by default. */}}
{{- define "bridge.spread" -}}
- {maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: ScheduleAnyway}
- {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway}
{{- end -}}

{{/* The parts that the members, the replay and the test share. */}}
{{- define "bridge.podSpec" -}}
serviceAccountName: {{ include "bridge.serviceAccountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- mergeOverwrite (deepCopy (default dict .Values.podSecurityContext)) (dict "runAsNonRoot" true "seccompProfile" (dict "type" "RuntimeDefault")) | toYaml | nindent 2 }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
volumes:
  - name: config
    configMap:
      name: {{ include "bridge.fullname" . }}
  - name: integrations
    configMap:
      {{- if .Values.existingIntegrationsConfigMap }}
      name: {{ .Values.existingIntegrationsConfigMap }}
      optional: false
      {{- else }}
      name: {{ include "bridge.fullname" . }}-integrations
      {{- end }}
  - name: blueprint
    configMap:
      name: {{ include "bridge.fullname" . }}-blueprint
  {{- if .Values.zerobus.tokenExchange.enabled }}
  - name: zerobus-token
    projected:
      sources:
        - serviceAccountToken:
            path: token
            audience: {{ required "zerobus.tokenExchange.audience: name an audience of the federation policy, such as databricks" .Values.zerobus.tokenExchange.audience | quote }}
            expirationSeconds: {{ .Values.zerobus.tokenExchange.expirationSeconds | int64 }}
  {{- end }}
  {{- with include "bridge.zerobusSecret" . }}
  - name: zerobus
    secret:
      secretName: {{ . }}
      defaultMode: 0440
  {{- end }}
  {{- if .Values.kafka.existingSecret }}
  - name: kafka
    secret:
      secretName: {{ .Values.kafka.existingSecret }}
      defaultMode: 0440
  {{- end }}
  {{- if .Values.ops.existingSecret }}
  - name: ops
    secret:
      secretName: {{ .Values.ops.existingSecret }}
      defaultMode: 0440
  {{- end }}
  {{- if .Values.kafka.tlsSecret }}
  - name: kafka-tls
    secret:
      secretName: {{ .Values.kafka.tlsSecret }}
      defaultMode: 0440
  {{- end }}
  {{- range $volume, $secret := include "bridge.adminSecrets" . | fromYaml }}
  - name: {{ $volume }}
    secret:
      secretName: {{ $secret }}
      defaultMode: 0440
  {{- end }}
  {{- with .Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* The Secrets of the install API, by the folder in which they are mounted. */}}
{{- define "bridge.adminSecrets" -}}
{{- with .Values.admin -}}
{{- if .enabled -}}
admin: {{ required "admin.existingSecret: name the Secret with the tokens of the install API; docs/admin-api.md shows how to make them" .existingSecret }}
store: {{ required "admin.storeKeysSecret: name the Secret with the keys that seal stored credentials; openssl rand -out store.key 32 makes one" .storeKeysSecret }}
{{- with .tlsSecret }}
admin-tls: {{ . }}
{{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "bridge.container" -}}
name: bridge
image: {{ include "bridge.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
  - {name: config, mountPath: /etc/bridge/config, readOnly: true}
  - {name: integrations, mountPath: /etc/bridge/integrations, readOnly: true}
  - {name: blueprint, mountPath: /etc/bridge/blueprint, readOnly: true}
  {{- if .Values.zerobus.tokenExchange.enabled }}
  - {name: zerobus-token, mountPath: /etc/bridge/zerobus-token, readOnly: true}
  {{- end }}
  {{- if include "bridge.zerobusSecret" . }}
  - {name: zerobus, mountPath: /etc/bridge/zerobus, readOnly: true}
  {{- end }}
  {{- if .Values.kafka.existingSecret }}
  - {name: kafka, mountPath: /etc/bridge/kafka, readOnly: true}
  {{- end }}
  {{- if .Values.ops.existingSecret }}
  - {name: ops, mountPath: /etc/bridge/ops, readOnly: true}
  {{- end }}
  {{- if .Values.kafka.tlsSecret }}
  - {name: kafka-tls, mountPath: /etc/bridge/kafka-tls, readOnly: true}
  {{- end }}
  {{- range $volume := include "bridge.adminSecrets" . | fromYaml | keys | sortAlpha }}
  - {name: {{ $volume }}, mountPath: /etc/bridge/{{ $volume }}, readOnly: true}
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
