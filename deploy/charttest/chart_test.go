package charttest_test

import (
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/datafly/bridge/deploy/charttest"
)

func TestChartLints(t *testing.T) {
	docs := map[string]map[string]any{"as it is": {}}
	for name, c := range charttest.Cases {
		docs[name] = values(t, c...)
	}
	for name, vals := range docs {
		for _, m := range lint.RunAll(chartDir, vals, "datafly").Messages {
			if m.Severity > support.InfoSev {
				t.Errorf("%s: helm lint: %s", name, m)
			}
		}
	}
}

func TestChartRendersWhatKubernetesTakes(t *testing.T) {
	for name, c := range charttest.Cases {
		t.Run(name, func(t *testing.T) {
			files := mustRender(t, values(t, c...))
			m := parse(t, joined(files))
			consistent(t, m)
			for n, o := range m.objects {
				if strings.HasPrefix(n, "ScaledObject/") {
					scaledObject(t, o)
				}
			}
			configured(t, m)
			if !strings.Contains(files["NOTES.txt"], "helm test bridge") {
				t.Errorf("the notes name no next command:\n%s", files["NOTES.txt"])
			}
		})
	}
}

func TestChartRefuses(t *testing.T) {
	for _, tc := range []struct{ name, values, contains string }{
		{"an unknown value", `replcias: 3`, "replcias"},
		{"an unknown section of the configuration", `config: {kafak: {}}`, "kafak"},
		{"a secret among the values", `config: {zerobus: {client_secret: hunter2}}`, "client_secret"},
		{"a password among the values", `config: {kafka: {sasl: {password: hunter2}}}`, "password"},
		{"one name for all members", `config: {kafka: {instance_id: bridge-0}}`, "instance_id"},
		{"a token without an audience", `zerobus: {tokenExchange: {enabled: true}}`, "zerobus.tokenExchange.audience: name an audience"},
		{"a token that ends too soon", `zerobus: {tokenExchange: {enabled: true, audience: a, expirationSeconds: 599}}`, "expirationSeconds"},
		{"a token file beside the chart's", `config: {zerobus: {token_exchange: {token_file: /x}}}`, "token_file"},
		{"no secret", `zerobus: {existingSecret: ""}`, "zerobus.existingSecret: name the Secret"},
		{"a drain longer than the grace period", `config: {delivery: {drain: 40s}}`, "would be killed while they drain"},
		{"a drain of minutes", `config: {delivery: {drain: 1m}}`, "would be killed while they drain"},
		{"a drain of parts", `config: {delivery: {drain: 0.5m500ms}}`, "would be killed while they drain"},
		{"a drain with too little left for the commit", `config: {delivery: {drain: 29s}}`, "at least two seconds more"},
		{"a buffer that the memory cannot hold", `config: {delivery: {max_buffered: 256 MiB}}`, "GOMEMLIMIT (409 MiB) must be at least twice the buffer"},
		{"a memory that the default buffer does not fit", `resources: {limits: {memory: 230Mi}}`, "config.delivery.max_buffered 96MiB"},
		{"a buffer that the bare memory cannot hold", `{config: {delivery: {max_buffered: 1GB}}, goMemLimitPercent: 0}`, "at least twice the buffer"},
		{"scaling without a Prometheus", `keda: {enabled: true}`, "keda.serverAddress: name the Prometheus"},
		{"scaling to none, where nothing reports how far behind it is", `keda: {enabled: true, minReplicas: 0}`, "minReplicas"},
		{"scaling between nothing", `keda: {enabled: true, maxReplicas: 1}`, "raise the first"},
		{"two folders of integrations", `{integrations: {orders: {}}, existingIntegrationsConfigMap: mine}`, "choose one of them"},
		{"an integration with the name of the base", `integrations: {default: {}}`, "default"},
		{"an integration whose name is no slug", `integrations: {Orders: {}}`, "Orders"},
		{"a key of the process in an integration", `integrations: {orders: {ops: {address: ":1"}}}`, "ops"},
		{"brokers of an integration", `integrations: {orders: {kafka: {brokers: [a]}}}`, "brokers"},
		{"a secret of an integration among the values", `integrations: {orders: {zerobus: {client_secret: hunter2}}}`, "client_secret"},
		{"integrations in the base", `config: {integrations: {orders: {}}}`, "integrations"},
		{"an API without tokens", `admin: {enabled: true, storeKeysSecret: store}`, "admin.existingSecret: name the Secret"},
		{"an API that nobody can log in to", `admin: {enabled: true, existingSecret: console, storeKeysSecret: store, key: ""}`, "nobody could log in"},
		{"a store without keys", `admin: {enabled: true, existingSecret: console}`, "admin.storeKeysSecret: name the Secret"},
		{"an Ingress to nothing", `ingress: {enabled: true, hosts: [a.example.com]}`, "set admin.enabled"},
		{"a route to nothing", `httpRoute: {enabled: true, parentRefs: [{name: a}]}`, "set admin.enabled"},
		{"an Ingress for every host", console + "\ningress: {enabled: true}", "ingress.hosts: name the host"},
		{"a route without a gateway", console + "\nhttpRoute: {enabled: true}", "httpRoute.parentRefs: name the gateway"},
		{"the API beside the chart's", `config: {admin: {enabled: true}}`, "admin"},
		{"keys beside the chart's", `config: {store: {keys: [/x]}}`, "keys"},
		{"nodes that can never be drained", `podDisruptionBudget: {maxUnavailable: 0}`, "maxUnavailable"},
		{"nodes that can never be drained, in percent", `podDisruptionBudget: {maxUnavailable: 0%}`, "maxUnavailable"},
		{"scaling members with fixed names", `{staticMembership: true, keda: {enabled: true}}`, "choose one of them"},
		{"events shown to everybody", `config: {ops: {live_events: full}}`, "ops.existingSecret"},
		{"a token among the values", `config: {ops: {token: hunter2}}`, "token"},
		{"a replay within the live group", `replay: {enabled: true, group: zerobus-bridge, from: -2h, until: now}`, "a group of the deployment"},
		{"a replay within the group of an integration", `{config: {deployment: eu}, integrations: {orders: {}}, replay: {enabled: true, group: eu-orders, from: -2h, until: now}}`, "a group of the deployment"},
		{"a replay within a named group of an integration", `{integrations: {orders: {kafka: {group: mine}}}, replay: {enabled: true, group: mine, from: -2h, until: now}}`, "a group of the deployment"},
		{"a replay without a group", `replay: {enabled: true, from: -2h, until: now}`, "replay.group: name a group"},
		{"a replay without an end", `replay: {enabled: true, group: again, from: -2h}`, "replay.until"},
		{"a memory limit the arithmetic does not know", `resources: {limits: {memory: 512M}}`, "memory"},
	} {
		_, err := render(t, values(t, minimal, tc.values))
		if err == nil || !strings.Contains(err.Error(), tc.contains) {
			t.Errorf("%s: got %v, want an error with %q", tc.name, err, tc.contains)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error repeats the secret: %v", tc.name, err)
		}
	}
}

// With workload identity the pods need no Secret: kubelet writes a token for the
// audience, and the configuration names its file.
func TestTokenExchange(t *testing.T) {
	m := parse(t, joined(mustRender(t, values(t, minimal, `zerobus: {existingSecret: "", tokenExchange: {enabled: true, audience: databricks, expirationSeconds: 7200}}`))))
	spec := one[*apps.Deployment](t, m, "Deployment/bridge").Spec.Template.Spec
	var token *core.ServiceAccountTokenProjection
	for _, v := range spec.Volumes {
		if v.Secret != nil {
			t.Errorf("volume %s is a Secret, want none", v.Name)
		}
		if v.Name == "zerobus-token" {
			token = v.Projected.Sources[0].ServiceAccountToken
		}
	}
	if token == nil || token.Audience != "databricks" || *token.ExpirationSeconds != 7200 || token.Path != "token" {
		t.Errorf("the projected token is %+v, want one of 7200 s for databricks", token)
	}
	if *spec.AutomountServiceAccountToken {
		t.Error("the token for the API server is mounted, want it left out")
	}
	config := one[*core.ConfigMap](t, m, "ConfigMap/bridge").Data["config.yaml"]
	if !strings.Contains(config, "token_file: /etc/bridge/zerobus-token/token") || strings.Contains(config, "client_secret") {
		t.Errorf("the configuration names no token file, or a secret:\n%s", config)
	}
}

// The console is reached over one balanced Service, from the controller that
// networkPolicy names, and its Secrets are files.
func TestConsole(t *testing.T) {
	for _, tc := range []struct{ name, values, port string }{
		{"http", "", "http"},
		{"tls", "admin: {tlsSecret: console-tls}", "https"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := parse(t, joined(mustRender(t, values(t, minimal, console, `{ingress: {enabled: true, hosts: [bridge.example.com]}, httpRoute: {enabled: true, parentRefs: [{name: public}]}, networkPolicy: {enabled: true}}`, tc.values))))
			service := one[*core.Service](t, m, "Service/bridge-admin").Spec
			if p := service.Ports[0]; p.Name != tc.port || p.TargetPort.StrVal != "admin" || service.ClusterIP != "" || !service.PublishNotReadyAddresses {
				t.Errorf("the service is %+v, want a balanced one of port %s to admin", service, tc.port)
			}
			backend := one[*networking.Ingress](t, m, "Ingress/bridge-admin").Spec.Rules[0].HTTP.Paths[0].Backend.Service
			if backend.Name != "bridge-admin" || backend.Port.Name != tc.port {
				t.Errorf("the ingress leads to %+v", backend)
			}
			route := one[*gateway.HTTPRoute](t, m, "HTTPRoute/bridge-admin").Spec.Rules[0].BackendRefs[0]
			if string(route.Name) != "bridge-admin" || *route.Port != service.Ports[0].Port {
				t.Errorf("the route leads to %+v", route)
			}
			ingress := one[*networking.NetworkPolicy](t, m, "NetworkPolicy/bridge").Spec.Ingress
			if len(ingress) != 2 || ingress[1].Ports[0].Port.StrVal != "admin" || len(ingress[1].From) != 1 {
				t.Errorf("the policy allows %+v, want the controller at admin alone", ingress)
			}
			config := one[*core.ConfigMap](t, m, "ConfigMap/bridge").Data["config.yaml"]
			for _, want := range []string{"address: :8084", "token_file: /etc/bridge/admin/tokens", "- /etc/bridge/store/store.key"} {
				if !strings.Contains(config, want) {
					t.Errorf("the configuration has no %s:\n%s", want, config)
				}
			}
			if strings.Contains(config, "tls_cert_file: /etc/bridge/admin-tls/tls.crt") != (tc.port == "https") {
				t.Errorf("the configuration and the listener differ about TLS:\n%s", config)
			}
		})
	}
}

func TestChartNamesWhatIsMissing(t *testing.T) {
	for path, contains := range map[string]string{
		"config.kafka.brokers":         "name two",
		"config.kafka.topics":          "name the topics",
		"config.zerobus.workspace_url": "https://",
		"config.zerobus.client_id":     "application id",
		"config.zerobus.table":         "catalog.schema.table",
		"zerobus.existingSecret":       "kubectl create secret",
	} {
		vals := values(t, minimal)
		at, parts := vals, strings.Split(path, ".")
		for _, part := range parts[:len(parts)-1] {
			at = at[part].(map[string]any)
		}
		delete(at, parts[len(parts)-1])
		_, err := render(t, vals)
		if err == nil || !strings.Contains(err.Error(), path+": ") || !strings.Contains(err.Error(), contains) {
			t.Errorf("without %s: got %v, want an error with its name and %q", path, err, contains)
		}
	}
}

// The sections the chart lets through are the bridge's.
func TestSchemaHasTheSectionsOfTheConfiguration(t *testing.T) {
	var schema struct {
		Properties struct {
			Config struct{ Properties map[string]any }
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, "deploy/helm/bridge/values.schema.json")), &schema); err != nil {
		t.Fatal(err)
	}
	var example map[string]any
	if err := yaml.Unmarshal([]byte(read(t, "config.example.yaml")), &example); err != nil {
		t.Fatal(err)
	}
	got := slices.Sorted(maps.Keys(schema.Properties.Config.Properties))
	if want := slices.Sorted(maps.Keys(example)); !slices.Equal(got, want) {
		t.Errorf("values.schema.json: config has the sections %v, config.example.yaml has %v", got, want)
	}
}

// A golden file shows a change of the manifests to whoever reads the change.
func TestChartDefaults(t *testing.T) {
	got := joined(mustRender(t, values(t, minimal)))
	const file = "testdata/defaults.golden.yaml"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the manifests of the defaults changed; go -C deploy/charttest test -run Defaults -update . rewrites them. Got:\n%s", got)
	}
}

func TestMembers(t *testing.T) {
	m := parse(t, joined(mustRender(t, values(t, minimal))))
	d := one[*apps.Deployment](t, m, "Deployment/bridge")
	c := d.Spec.Template.Spec.Containers[0]
	if c.LivenessProbe.HTTPGet.Path != "/livez" || c.StartupProbe.HTTPGet.Path != "/livez" || c.ReadinessProbe.HTTPGet.Path != "/readyz" {
		t.Errorf("probes: got %s, %s, %s, want /livez, /livez, /readyz", c.StartupProbe.HTTPGet.Path, c.LivenessProbe.HTTPGet.Path, c.ReadinessProbe.HTTPGet.Path)
	}
	if got := c.Env; len(got) != 1 || got[0].Name != "GOMEMLIMIT" || got[0].Value != "409MiB" {
		t.Errorf("variables: got %v, want GOMEMLIMIT at 80 %% of 512Mi, 409MiB", got)
	}
	// So that bridge status, run within a pod, has what /status asks for.
	guarded := parse(t, joined(mustRender(t, values(t, minimal, `ops: {existingSecret: page}`))))
	env := one[*apps.Deployment](t, guarded, "Deployment/bridge").Spec.Template.Spec.Containers[0].Env
	if last := env[len(env)-1]; last.Name != "BRIDGE_OPS_TOKEN_FILE" || last.Value != "/etc/bridge/ops/token" {
		t.Errorf("variables with a token: got %v, want BRIDGE_OPS_TOKEN_FILE", env)
	}
	if !c.Resources.Limits.Cpu().IsZero() {
		t.Errorf("got a CPU limit of %s; a throttled member misses heartbeats", c.Resources.Limits.Cpu())
	}
	scaled := parse(t, joined(mustRender(t, values(t, minimal, `keda: {enabled: true, serverAddress: "http://prometheus:9090"}`))))
	if got := one[*apps.Deployment](t, scaled, "Deployment/bridge").Spec.Replicas; got != nil {
		t.Errorf("replicas beside KEDA: got %d, want none: each upgrade would undo the scaling", *got)
	}
}

func TestStaticMembersAreNamedAfterTheirPods(t *testing.T) {
	m := parse(t, joined(mustRender(t, values(t, minimal, `staticMembership: true`))))
	s := one[*apps.StatefulSet](t, m, "StatefulSet/bridge")
	env := s.Spec.Template.Spec.Containers[0].Env
	if len(env) == 0 || env[0].Name != "BRIDGE_KAFKA_INSTANCE_ID" || env[0].ValueFrom.FieldRef.FieldPath != "metadata.name" {
		t.Fatalf("variables: got %v, want BRIDGE_KAFKA_INSTANCE_ID from metadata.name", env)
	}
	if out, code := bridge(t, []string{env[0].Name + "=bridge-0"}, "ddl"); code != 0 {
		t.Errorf("the bridge refuses %s=bridge-0: exit code %d\n%s", env[0].Name, code, out)
	}
	if _, code := bridge(t, []string{env[0].Name + "S=bridge-0"}, "ddl"); code != 2 {
		t.Errorf("an unknown variable: got exit code %d, want 2, or this test proves nothing", code)
	}
	if m.objects["Service/"+s.Spec.ServiceName] == nil {
		t.Errorf("serviceName is %q, which is none of %v", s.Spec.ServiceName, m.names)
	}
}

// What restarts pods and what does not.
func TestChecksumCoversTheConfigurationAlone(t *testing.T) {
	sum := func(extra string) string {
		m := parse(t, joined(mustRender(t, values(t, minimal, `blueprint: "version: 1"`, extra))))
		return one[*apps.Deployment](t, m, "Deployment/bridge").Spec.Template.Annotations["checksum/config"]
	}
	before := sum(``)
	if got := sum(`config: {delivery: {max_rows: 100}}`); got == before {
		t.Error("a changed configuration leaves the pods as they are")
	}
	for what, doc := range map[string]string{
		"a changed blueprint": `blueprint: "version: 2"`, "a new integration": `integrations: {orders: {zerobus: {table: orders}}}`,
		"a blueprint of an integration": `blueprints: {orders.yaml: "version: 2"}`,
	} {
		if got := sum(doc); got != before {
			t.Errorf("%s restarts the pods, which load it without", what)
		}
	}
}

func TestReplayJob(t *testing.T) {
	name := func(extra string) (string, *batch.Job) {
		m := parse(t, joined(mustRender(t, values(t, minimal, everything, extra))))
		for n, o := range m.objects {
			if job, ok := o.(*batch.Job); ok {
				return n, job
			}
		}
		t.Fatalf("got no Job, have %v", m.names)
		return "", nil
	}
	first, job := name(``)
	want := []string{"run", "--config", "/etc/bridge/config/config.yaml", "--group", "replay-1",
		"--from=2026-11-22T06:00:00Z", "--until=-1h", "--integration", "orders", "--set", "integrations.orders.zerobus.table=stream_replay"}
	if got := job.Spec.Template.Spec.Containers[0].Args; !slices.Equal(got, want) {
		t.Errorf("arguments: got %q, want %q", got, want)
	}
	if again, _ := name(``); again != first {
		t.Errorf("the same window: got Job %s, want %s", again, first)
	}
	if other, _ := name(`replay: {until: "-2h"}`); other == first {
		t.Errorf("another window: got Job %s again, which Kubernetes would refuse to change", other)
	}
	if job.Spec.Completions != nil {
		t.Errorf("completions: got %d, want none: members that share the work end together", *job.Spec.Completions)
	}
}

func TestRulesAreThoseOfPrometheus(t *testing.T) {
	if read(t, "deploy/helm/bridge/files/rules.yaml") != read(t, "deploy/prometheus/rules.yaml") {
		t.Error("deploy/helm/bridge/files/rules.yaml is not deploy/prometheus/rules.yaml; cp deploy/prometheus/rules.yaml deploy/helm/bridge/files/")
	}
	m := parse(t, joined(mustRender(t, values(t, minimal, `prometheusRule: {enabled: true}`))))
	got := one[*monitoring.PrometheusRule](t, m, "PrometheusRule/bridge")
	var want monitoring.PrometheusRuleSpec
	if err := yaml.UnmarshalStrict([]byte(read(t, "deploy/prometheus/rules.yaml")), &want); err != nil {
		t.Fatal(err)
	}
	if len(want.Groups) == 0 || !reflect.DeepEqual(got.Spec, want) {
		t.Errorf("rules: got %d groups, want the %d of deploy/prometheus/rules.yaml unchanged", len(got.Spec.Groups), len(want.Groups))
	}
}
