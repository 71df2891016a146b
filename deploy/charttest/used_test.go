package charttest_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"sigs.k8s.io/yaml"
)

// changed are other values for those that cannot be any text or number.
var changed = map[string]any{
	"image.tag":                        "v9",
	"image.digest":                     "sha256:" + strings.Repeat("f", 64),
	"image.pullPolicy":                 "Always",
	"imagePullSecrets":                 []any{map[string]any{"name": "another"}},
	"extraEnv":                         []any{map[string]any{"name": "ANOTHER", "value": "x"}},
	"extraEnvFrom":                     []any{},
	"extraVolumes":                     []any{map[string]any{"name": "another", "emptyDir": map[string]any{}}},
	"extraVolumeMounts":                []any{},
	"keda.authenticationKind":          "ClusterTriggerAuthentication",
	"serviceMonitor.relabelings":       []any{},
	"serviceMonitor.metricRelabelings": []any{},
	"networkPolicy.tracingPorts":       []any{14317},
	"tolerations":                      []any{map[string]any{"key": "another"}},
	"affinity":                         map[string]any{"podAffinity": map[string]any{}},
	"topologySpreadConstraints":        []any{map[string]any{"maxSkew": 2}},
	"strategy.type":                    "Recreate",
	"resources.requests.memory":        "333Mi",
	"resources.limits.memory":          "2Gi",
	"serviceMonitor.interval":          "7s",
	"networkPolicy.metricsFrom":        []any{},
	"networkPolicy.adminFrom":          []any{},
	"httpRoute.hostnames":              []any{"another.example.com"},
	"httpRoute.parentRefs":             []any{map[string]any{"name": "another"}},
	"ingress.hosts":                    []any{"another.example.com"},
	"ingress.tls":                      []any{},
	"admin.storeKeys":                  []any{"another"},
	"networkPolicy.kafkaPorts":         []any{19092},
	"networkPolicy.kafkaTo":            []any{},
	"networkPolicy.extraEgress":        []any{},
	"serviceMonitor.scrapeTimeout":     "3s",
	"replay.set":                       []any{"zerobus.table=another"},
	"integrations":                     map[string]any{"another": map[string]any{"zerobus": map[string]any{"table": "another"}}},
	"blueprints":                       map[string]any{"another.yaml": "version: 2\nextends: default\n"},
	"keda.serverAddress":               "http://another:9090",
	"config":                           map[string]any{"kafka": map[string]any{"group": "another"}},
}

// refusals say that one value may not stand with another: it is used.
var refusals = []string{"choose one of them", "replay.group: name a group", "name a Secret with a token", "raise the first", "keda.serverAddress: name", "at least twice the buffer",
	"zerobus.tokenExchange.audience: name", "set admin.enabled", "admin.existingSecret: name", "image.allowMutableTag"}

// Every value of values.yaml is changed alone; a value whose change nothing
// shows does nothing.
func TestEveryValueIsUsed(t *testing.T) {
	var all map[string]any
	if err := yaml.Unmarshal([]byte(read(t, "deploy/helm/bridge/values.yaml")), &all); err != nil {
		t.Fatal(err)
	}
	// A full name hides the name, a digest the tag, KEDA the replicas, fixed names
	// the strategy; each is left out somewhere.
	bases := map[string]map[string]any{
		"everything": values(t, minimal, everything),
		"static":     values(t, minimal, everything, `{staticMembership: true, keda: {enabled: false}, fullnameOverride: "", image: {digest: ""}}`),
		"minimal":    values(t, minimal),
		"mutable":    values(t, minimal, `image: {tag: main, allowMutableTag: true}`),
	}
	before := map[string]string{}
	for name, base := range bases {
		before[name] = joined(mustRender(t, base))
	}
	for path, value := range leaves(all, "") {
		shown := false
		for name, base := range bases {
			other, ok := changed[path]
			if !ok {
				other = different(t, path, get(base, path, value))
			}
			files, err := render(t, with(base, strings.Split(path, "."), other))
			if err != nil {
				if !slices.ContainsFunc(refusals, func(r string) bool { return strings.Contains(err.Error(), r) }) {
					t.Errorf("%s: %v in %s: %v", path, other, name, err)
				}
				shown = true
				continue
			}
			shown = shown || joined(files) != before[name]
		}
		if !shown {
			t.Errorf("%s changes nothing", path)
		}
	}
}

// leaves are the values by dotted path; empty maps and lists count as values.
func leaves(m map[string]any, prefix string) map[string]any {
	out := map[string]any{}
	for key, value := range m {
		if deeper, ok := value.(map[string]any); ok && len(deeper) > 0 {
			maps.Copy(out, leaves(deeper, prefix+key+"."))
			continue
		}
		out[prefix+key] = value
	}
	return out
}

// get is the value at path, or that of values.yaml.
func get(m map[string]any, path string, otherwise any) any {
	at := any(m)
	for _, part := range strings.Split(path, ".") {
		inner, ok := at.(map[string]any)
		if !ok {
			return otherwise
		}
		if at, ok = inner[part]; !ok {
			return otherwise
		}
	}
	return at
}

// with is m with another value at path; m stays as it is.
func with(m map[string]any, path []string, value any) map[string]any {
	for _, part := range slices.Backward(path) {
		value = map[string]any{part: value}
	}
	return loader.MergeMaps(m, value.(map[string]any))
}

func different(t *testing.T, path string, value any) any {
	t.Helper()
	switch v := value.(type) {
	case bool:
		return !v
	case float64:
		return v + 1
	case string:
		return "another"
	case map[string]any:
		return map[string]any{"another": "label"}
	}
	t.Errorf("%s: %v: say in changed what else it may be", path, value)
	return value
}
