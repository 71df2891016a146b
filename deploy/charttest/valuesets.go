// Package charttest tests the Helm chart and the plain Kubernetes manifests. It is a
// module of its own, so that Helm and the Kubernetes types stay out of the bridge's.
// It exports the value sets, which deploy/clustertest installs on an API server.
package charttest

import (
	"regexp"
	"strings"
)

// Minimal are the values that have no default.
const Minimal = `
config:
  kafka: {brokers: [kafka-0:9092, kafka-1:9092], topics: [delivery-int_xyz789]}
  zerobus:
    workspace_url: https://abc-12345.cloud.databricks.com
    client_id: 00000000-0000-0000-0000-000000000000
    table: datafly.events.stream
zerobus: {existingSecret: zerobus}
image: {tag: v1.2.3}
`

// Everything switches on what can be on at once, on top of Minimal.
const Everything = `
fullnameOverride: carrier
commonLabels: {team: data}
commonAnnotations: {owner: data}
image: {digest: sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef}
imagePullSecrets: [{name: registry}]
config:
  admin: {jwt_audience: console}
  kafka: {topics: [one, two], group: orders, sasl: {mechanism: scram-sha-512, username: bridge}}
  delivery: {max_buffered: 128MiB, max_rows: 1000000}
  zerobus: {rate_limit: 2000000}
  ops: {live_events: full}
integrations:
  orders:
    kafka: {topics: [orders], group: orders-to-databricks}
    zerobus: {table: datafly.events.orders, client_secret_file: /etc/bridge/zerobus/orders}
    mapping: {blueprint: /etc/bridge/blueprint/orders.yaml}
    rejects: {topic: orders-rejected}
  clicks: {enabled: false, delivery: {max_rows: 100}, zerobus: {table: datafly.events.clicks}}
blueprint: |
  version: 2
  extends: default
blueprints: {orders.yaml: "version: 2\nextends: default\n"}
ops: {existingSecret: page}
zerobus: {tokenExchange: {enabled: true, audience: databricks}}
kafka: {existingSecret: kafka, tlsSecret: kafka-tls, tlsCA: true, tlsClient: true}
resources: {requests: {cpu: 1, memory: 512Mi}, limits: {memory: 1Gi}}
serviceAccount: {annotations: {eks.amazonaws.com/role-arn: arn:aws:iam::1:role/bridge}}
extraEnv: [{name: HTTPS_PROXY, value: http://proxy:3128}, {name: OTEL_TRACES_EXPORTER, value: otlp}]
extraEnvFrom: [{secretRef: {name: proxy}}]
extraVolumes: [{name: authorities, configMap: {name: authorities, optional: true}}]
extraVolumeMounts: [{name: authorities, mountPath: /etc/authorities, readOnly: true}]
podAnnotations: {a: b}
podLabels: {c: d}
nodeSelector: {disk: fast}
tolerations: [{key: only, operator: Exists}]
affinity: {nodeAffinity: {}}
topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]
priorityClassName: high
keda: {enabled: true, serverAddress: "http://prometheus:9090", authenticationRef: prometheus}
serviceMonitor: {enabled: true, labels: {release: prometheus}, relabelings: [{targetLabel: cluster, replacement: one}], metricRelabelings: [{action: labeldrop, regex: x}]}
prometheusRule: {enabled: true, labels: {release: prometheus}}
admin: {enabled: true, existingSecret: console, jwksKey: jwks.json, tlsSecret: console-tls, storeKeysSecret: store, storeKeys: [new, old]}
ingress: {enabled: true, className: nginx, annotations: {nginx.ingress.kubernetes.io/proxy-buffering: "off"}, hosts: [bridge.example.com], tls: [{secretName: bridge-tls, hosts: [bridge.example.com]}]}
httpRoute: {enabled: true, annotations: {a: b}, parentRefs: [{name: public, namespace: gateways}], hostnames: [bridge.example.com]}
networkPolicy: {enabled: true, kafkaTo: [{ipBlock: {cidr: 10.0.0.0/8}}], extraEgress: [{ports: [{port: 3128, protocol: TCP}]}]}
replay: {enabled: true, integration: orders, group: replay-1, from: "2026-11-22T06:00:00Z", until: "-1h", set: [integrations.orders.zerobus.table=stream_replay], parallelism: 2}
`

// Cases are values that people combine.
var Cases = map[string][]string{
	"minimal":           {Minimal},
	"everything":        {Minimal, Everything},
	"static membership": {Minimal, Everything, `{staticMembership: true, keda: {enabled: false}}`},
	"no account":        {Minimal, `{serviceAccount: {create: false}, podDisruptionBudget: {enabled: false}, goMemLimitPercent: 0}`},
	"own account":       {Minimal, `{serviceAccount: {create: false, name: mine}, image: {tag: v1.2.3}}`},
	"oauthbearer":       {Minimal, `{kafka: {existingSecret: kafka, tlsSecret: kafka-tls}, config: {kafka: {sasl: {mechanism: OAUTHBEARER, oauth: {token_url: "https://login.example.com/token", client_id: bridge}}}}}`},
	"one way TLS":       {Minimal, `{kafka: {tlsSecret: kafka-tls}}`},
	"public CA":         {Minimal, `{kafka: {tlsSecret: kafka-tls, tlsCA: false, tlsClient: true}}`},
	"grpc":              {Minimal, `{config: {zerobus: {transport: grpc, endpoint: "1.zerobus.us-west-2.cloud.databricks.com"}}}`},
	"nobody watches":    {Minimal, `{networkPolicy: {enabled: true, metricsFrom: []}}`},
	"recreate":          {Minimal, `{strategy: {type: Recreate, rollingUpdate: null}}`},
	"only integrations": {onlyIntegrations},
	"token exchange":    {Minimal, `zerobus: {existingSecret: "", tokenExchange: {enabled: true, audience: databricks}}`},
	"token of a user":   {Minimal, `{config: {zerobus: {token_exchange: {policy: account}}}, zerobus: {tokenExchange: {enabled: true, audience: databricks}}, integrations: {orders: {zerobus: {table: a.b.c, client_secret_file: /etc/bridge/zerobus/orders}}}}`},
	"own ConfigMap":     {Minimal, `existingIntegrationsConfigMap: mine`},
	"console":           {Minimal, Console},
	"nothing installed": {Console, `{image: {tag: v1.2.3}, config: {kafka: {brokers: [kafka-0:9092]}, admin: {jwt_audience: console}}, admin: {key: "", jwksKey: jwks.json}}`},
	"mutable tag":       {Minimal, `image: {tag: main, allowMutableTag: true, pullPolicy: Always}`},
	"long drain":        {Minimal, `{config: {delivery: {drain: 50s}}, terminationGracePeriodSeconds: 55}`},
}

// Console switches the install API on.
const Console = `admin: {enabled: true, existingSecret: console, storeKeysSecret: store}`

// onlyIntegrations is a deployment without the integration default; one of them reads
// the topics of the base.
const onlyIntegrations = `
image: {tag: v1.2.3}
config:
  deployment: eu
  kafka: {brokers: [kafka-0:9092, kafka-1:9092], topics: [delivery-int_xyz789]}
zerobus: {existingSecret: zerobus}
integrations:
  orders:
    kafka: {topics: [orders]}
    zerobus: {workspace_url: "https://abc-12345.cloud.databricks.com", client_id: a, table: datafly.events.orders}
  clicks:
    zerobus: {workspace_url: "https://other-12345.cloud.databricks.com", client_id: b, table: datafly.events.clicks, client_secret_file: /etc/bridge/zerobus/clicks}
`

var fenced = regexp.MustCompile(`(?s)\n *` + "```yaml\n(.*?)```")

// Documented returns the values that docs/deployment.md and docs/migration.md show,
// each to be merged with [Minimal].
func Documented(deployment, migration string) (blocks []string) {
	for _, block := range fenced.FindAllStringSubmatch(deployment, -1) {
		blocks = append(blocks, block[1])
	}
	for _, block := range fenced.FindAllStringSubmatch(migration, -1) {
		if strings.Contains(block[1], "existingSecret") { // the others are the bridge's own
			blocks = append(blocks, block[1])
		}
	}
	return blocks
}
