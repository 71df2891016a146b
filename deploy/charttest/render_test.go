package charttest_test

import (
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"sigs.k8s.io/yaml"
)

const (
	root     = "../.."
	chartDir = "../helm/bridge"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// minimal are the values that have no default.
const minimal = `
config:
  kafka: {brokers: [kafka-0:9092, kafka-1:9092], topics: [delivery-int_xyz789]}
  zerobus:
    workspace_url: https://abc-12345.cloud.databricks.com
    client_id: 00000000-0000-0000-0000-000000000000
    table: datafly.events.stream
zerobus: {existingSecret: zerobus}
`

// everything switches on what can be on at once, on top of minimal.
const everything = `
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

// values merges documents, the later ones over the earlier ones.
func values(t *testing.T, docs ...string) map[string]any {
	t.Helper()
	all := map[string]any{}
	for _, doc := range docs {
		var one map[string]any
		if err := yaml.Unmarshal([]byte(doc), &one); err != nil {
			t.Fatalf("values %s: %v", doc, err)
		}
		all = loader.MergeMaps(all, one)
	}
	return all
}

func load(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loader.Load(chartDir)
	if err != nil {
		t.Fatalf("loading the chart: %v", err)
	}
	return c
}

// render makes of values what helm template prints, NOTES.txt included, by the
// name of the template. The values are validated against values.schema.json.
func render(t *testing.T, vals map[string]any) (map[string]string, error) {
	t.Helper()
	c := load(t)
	release := common.ReleaseOptions{Name: "bridge", Namespace: "datafly", Revision: 1, IsInstall: true}
	all, err := util.ToRenderValues(c, vals, release, common.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	files, err := engine.Render(c, all)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for name, text := range files {
		if strings.TrimSpace(text) != "" && !strings.HasSuffix(name, ".tpl") {
			out[strings.TrimPrefix(name, "bridge/templates/")] = text
		}
	}
	return out, nil
}

func mustRender(t *testing.T, vals map[string]any) map[string]string {
	t.Helper()
	files, err := render(t, vals)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// joined is the manifest as one text, without the notes.
func joined(files map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if name != "NOTES.txt" {
			b.WriteString("---\n# " + name + "\n" + strings.TrimSpace(files[name]) + "\n")
		}
	}
	return b.String()
}

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
