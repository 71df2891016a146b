package charttest_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
)

func deployment(t *testing.T, docs ...string) *apps.Deployment {
	t.Helper()
	return one[*apps.Deployment](t, parse(t, joined(mustRender(t, values(t, append([]string{minimal}, docs...)...)))), "Deployment/bridge")
}

// The API server refuses rollingUpdate beside Recreate, and the default has one.
func TestRecreateHasNoRollingUpdate(t *testing.T) {
	if got := deployment(t, `strategy: {type: Recreate}`).Spec.Strategy; got.Type != apps.RecreateDeploymentStrategyType || got.RollingUpdate != nil {
		t.Errorf("got %+v, want Recreate alone", got)
	}
}

// null leaves the number to another controller; it must not become 0.
func TestReplicasMayBeSomebodyElses(t *testing.T) {
	if got := deployment(t, `replicas: null`).Spec.Replicas; got != nil {
		t.Errorf("got %d replicas, want the field left out", *got)
	}
	for doc, contains := range map[string]string{`replicas: null`: "An unset number of member(s) run", `replicas: 0`: "0 member(s) run"} {
		if notes := mustRender(t, values(t, minimal, doc))["NOTES.txt"]; !strings.Contains(notes, contains) {
			t.Errorf("%s: the notes do not say %q:\n%s", doc, contains, notes)
		}
	}
}

func TestNotesLeadToTheConsole(t *testing.T) {
	const alone = `{image: {tag: v1}, config: {kafka: {brokers: [kafka-0:9092]}}}`
	for doc, contains := range map[string]string{
		`{}`: "of its own: those that are installed.", `ingress: {enabled: true, hosts: [a.example.com]}`: "open https://a.example.com/",
		`httpRoute: {enabled: true, parentRefs: [{name: public}], hostnames: [b.example.com]}`: "open https://b.example.com/",
	} {
		if notes := mustRender(t, values(t, console, alone, doc))["NOTES.txt"]; !strings.Contains(notes, contains) {
			t.Errorf("%s: the notes do not have %q:\n%s", doc, contains, notes)
		}
	}
}

// A chart that has this one as a dependency puts its condition and its globals
// among the values here.
func TestChartIsADependency(t *testing.T) {
	deployment(t, `{enabled: true, global: {imageRegistry: registry.example.com, anything: {else: 1}}}`)
}

// OpenShift assigns user and groups, and refuses pods that ask for others.
func TestNumbersOfTheUserCanBeLeftOut(t *testing.T) {
	got := deployment(t, `podSecurityContext: {runAsUser: null, runAsGroup: null, fsGroup: null, runAsNonRoot: false, supplementalGroups: [7]}`).Spec.Template.Spec
	if s := got.SecurityContext; s.RunAsUser != nil || s.RunAsGroup != nil || s.FSGroup != nil || !slices.Equal(s.SupplementalGroups, []int64{7}) {
		t.Errorf("got %+v, want no numbers but the group asked for", s)
	}
	locked(t, "the deployment", got)
}

// A tag that is moved to another image is refused; a digest needs no tag.
func TestMutableTags(t *testing.T) {
	for _, tag := range []string{"latest", "main", "dev", ""} { // empty is the chart's appVersion, latest
		_, err := render(t, values(t, minimal, `image: {tag: "`+tag+`"}`))
		if err == nil {
			t.Errorf("tag %q is accepted", tag)
			continue
		}
		for _, want := range []string{"image.tag is", "v1.2.3", "image.digest", "image.allowMutableTag=true"} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("tag %q: the error has no %q: %v", tag, want, err)
			}
		}
	}
	digest := "sha256:" + strings.Repeat("0", 64)
	for doc, want := range map[string]string{
		`image: {tag: "", digest: "` + digest + `"}`: "datafly/bridge@" + digest,
		`image: {tag: main, allowMutableTag: true}`:  "datafly/bridge:main",
		`image: {tag: 98a82c2}`:                      "datafly/bridge:98a82c2",
		`image: {repository: localhost:5000/bridge}`: "localhost:5000/bridge:v1.2.3",
	} {
		if got := deployment(t, doc).Spec.Template.Spec.Containers[0].Image; got != want {
			t.Errorf("%s: got %s, want %s", doc, got, want)
		}
	}
}

// Without a selector a constraint counts no pods, and the API server warns.
func TestSpreadCountsTheMembers(t *testing.T) {
	got := deployment(t, `topologySpreadConstraints: [{maxSkew: 2, topologyKey: rack, whenUnsatisfiable: DoNotSchedule, labelSelector: null, matchLabelKeys: [pod-template-hash]}, {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {a: b}}}]`).Spec
	constraints := got.Template.Spec.TopologySpreadConstraints
	if c := constraints[0]; c.MaxSkew != 2 || c.TopologyKey != "rack" || !maps.Equal(c.LabelSelector.MatchLabels, got.Selector.MatchLabels) {
		t.Errorf("got %+v, want the constraint with the selector of the members", c)
	}
	if c := constraints[1]; !maps.Equal(c.LabelSelector.MatchLabels, map[string]string{"a": "b"}) {
		t.Errorf("got %+v, want the selector of the values", c)
	}
}

// What people add comes with every pod: a certificate that the members need, the
// replay and the test need too, and a sidecar that is switched off by an
// annotation would keep the Job from ending.
func TestExtrasAreOnEveryPod(t *testing.T) {
	m := parse(t, joined(mustRender(t, values(t, minimal, everything, `
image: {tag: v9}
`))))
	seen := 0
	for name, o := range m.objects {
		template, _, ok := pod(o)
		if !ok {
			continue
		}
		seen++
		c := template.Spec.Containers[0]
		if !slices.ContainsFunc(template.Spec.Volumes, func(v core.Volume) bool { return v.Name == "authorities" }) ||
			!slices.ContainsFunc(c.VolumeMounts, func(v core.VolumeMount) bool { return v.MountPath == "/etc/authorities" }) ||
			len(c.EnvFrom) != 1 || c.EnvFrom[0].SecretRef == nil || c.EnvFrom[0].SecretRef.Name != "proxy" {
			t.Errorf("%s: got volumes %v, mounts %v, variables from %v, want those added", name, template.Spec.Volumes, c.VolumeMounts, c.EnvFrom)
		}
		if template.Annotations["a"] != "b" || template.Labels["c"] != "d" {
			t.Errorf("%s: got annotations %v, labels %v, want a: b and c: d", name, template.Annotations, template.Labels)
		}
		if len(template.Spec.ImagePullSecrets) != 1 || template.Spec.ServiceAccountName != "carrier" {
			t.Errorf("%s: got pull secrets %v, account %s", name, template.Spec.ImagePullSecrets, template.Spec.ServiceAccountName)
		}
	}
	if seen != 3 {
		t.Errorf("got %d pods, want the members, the replay and the test", seen)
	}
}

// Two variables of one name merge badly on an upgrade.
func TestGoMemLimitStandsOnce(t *testing.T) {
	env := deployment(t, `extraEnv: [{name: GOMEMLIMIT, value: 300MiB}]`).Spec.Template.Spec.Containers[0].Env
	if len(env) != 1 || env[0].Value != "300MiB" {
		t.Errorf("got %v, want the one given", env)
	}
}

// The pods of a Job cannot be changed: an upgrade of the image would fail.
func TestAnotherImageIsAnotherReplay(t *testing.T) {
	name := func(doc string) string {
		m := parse(t, joined(mustRender(t, values(t, minimal, everything, doc))))
		for _, o := range m.objects {
			if job, ok := o.(*batch.Job); ok {
				return job.Name
			}
		}
		t.Fatalf("no Job among %v", m.names)
		return ""
	}
	before := name(``)
	for _, doc := range []string{`image: {digest: "", tag: v2}`, `resources: {limits: {memory: 2Gi}}`, `extraEnv: []`, `podLabels: {e: f}`, `podAnnotations: {e: f}`} {
		if name(doc) == before {
			t.Errorf("%s: the Job keeps its name, and the API server would refuse the change", doc)
		}
	}
	if name(`{replicas: 9, replay: {parallelism: 3}}`) != before {
		t.Error("the number of pods makes another Job, though it can be changed")
	}
}

// The policy allows the ports of the configuration without listing them again.
func TestNetworkPolicyFollowsTheConfiguration(t *testing.T) {
	ports := func(docs ...string) (all []int) {
		m := parse(t, joined(mustRender(t, values(t, append([]string{minimal, `networkPolicy: {enabled: true}`}, docs...)...))))
		for _, rule := range one[*networking.NetworkPolicy](t, m, "NetworkPolicy/bridge").Spec.Egress {
			for _, p := range rule.Ports {
				all = append(all, p.Port.IntValue())
			}
		}
		return all
	}
	if got, want := ports(), []int{9400, 53, 53, 9092, 9093, 9094, 9096, 9098, 443}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	got := ports(`config: {kafka: {brokers: ["kafka:19092", "kafka"], sasl: {oauth: {token_url: "https://login.example.com:8443/token"}}},
  zerobus: {endpoint: "zerobus.example.com:9443"}, tracing: {enabled: true}}`)
	if want := []int{9400, 53, 53, 9092, 9093, 9094, 9096, 9098, 19092, 443, 8443, 9443, 4317, 4318}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := ports(`integrations: {orders: {zerobus: {workspace_url: "https://workspace.example.com:10443"}}}`); !slices.Contains(got, 10443) {
		t.Errorf("the workspace of an integration: got %v, want 10443 among them", got)
	}
	if got := ports(`extraEnv: [{name: OTEL_TRACES_EXPORTER, value: otlp}]`); !slices.Contains(got, 4317) {
		t.Errorf("traces by a variable: got %v, want 4317 among them", got)
	}
}

// The members read each other's status, so the policy lets them, and the Service has
// those that are not ready as well.
func TestMembersReachEachOther(t *testing.T) {
	m := parse(t, joined(mustRender(t, values(t, minimal, `networkPolicy: {enabled: true, metricsFrom: []}`))))
	policy := one[*networking.NetworkPolicy](t, m, "NetworkPolicy/bridge").Spec
	template := one[*apps.Deployment](t, m, "Deployment/bridge").Spec.Template
	from, to := policy.Ingress[0], policy.Egress[0]
	if len(policy.Ingress) != 1 || len(from.From) != 1 || !selects(t, from.From[0].PodSelector, template.Labels) || from.Ports[0].Port.StrVal != "ops" {
		t.Errorf("ingress: got %+v, want the members at the ops port alone", policy.Ingress)
	}
	if len(to.To) != 1 || !selects(t, to.To[0].PodSelector, template.Labels) || to.Ports[0].Port.IntValue() != 9400 {
		t.Errorf("egress: got %+v, want the members at 9400 first", to)
	}
	service := one[*core.Service](t, m, "Service/bridge")
	if service.Spec.ClusterIP != core.ClusterIPNone || !service.Spec.PublishNotReadyAddresses {
		t.Errorf("the Service: got %+v, want a headless one that publishes addresses that are not ready", service.Spec)
	}
	if config := one[*core.ConfigMap](t, m, "ConfigMap/bridge").Data["config.yaml"]; !strings.Contains(config, "peers:\n  - bridge:9400\n") {
		t.Errorf("ops.peers is not the Service:\n%s", config)
	}
}

// One trigger for all integrations: KEDA takes the maximum over triggers anyway.
func TestScalingBySecondsBehind(t *testing.T) {
	m := parse(t, joined(mustRender(t, values(t, minimal, `{keda: {enabled: true, serverAddress: "http://prometheus:9090", authenticationRef: all,
  authenticationKind: ClusterTriggerAuthentication, triggerMetadata: {authModes: bearer}}, integrations: {orders: {}, clicks: {}}}`))))
	object := *one[*map[string]any](t, m, "ScaledObject/bridge")
	triggers := object["spec"].(map[string]any)["triggers"].([]any)
	trigger := triggers[0].(map[string]any)
	metadata, ref := trigger["metadata"].(map[string]any), trigger["authenticationRef"].(map[string]any)
	if len(triggers) != 1 || trigger["metricType"] != "Value" || metadata["serverAddress"] != "http://prometheus:9090" || metadata["threshold"] != "15" ||
		metadata["query"] != `max(bridge_seconds_behind{namespace="datafly", job="bridge"})` || metadata["authModes"] != "bearer" {
		t.Errorf("got %v, want one trigger by the largest number of seconds behind", triggers)
	}
	if ref["kind"] != "ClusterTriggerAuthentication" || ref["name"] != "all" {
		t.Errorf("got the login %v, want the one given", ref)
	}
}
