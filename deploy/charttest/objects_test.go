package charttest_test

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/santhosh-tekuri/jsonschema/v6"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

// kinds are the objects the bridge is deployed with.
var kinds = map[string]func() any{
	"v1 ConfigMap":                            func() any { return &core.ConfigMap{} },
	"v1 Namespace":                            func() any { return &core.Namespace{} },
	"v1 Pod":                                  func() any { return &core.Pod{} },
	"v1 Service":                              func() any { return &core.Service{} },
	"v1 ServiceAccount":                       func() any { return &core.ServiceAccount{} },
	"apps/v1 Deployment":                      func() any { return &apps.Deployment{} },
	"apps/v1 StatefulSet":                     func() any { return &apps.StatefulSet{} },
	"batch/v1 Job":                            func() any { return &batch.Job{} },
	"networking.k8s.io/v1 NetworkPolicy":      func() any { return &networking.NetworkPolicy{} },
	"networking.k8s.io/v1 Ingress":            func() any { return &networking.Ingress{} },
	"gateway.networking.k8s.io/v1 HTTPRoute":  func() any { return &gateway.HTTPRoute{} },
	"policy/v1 PodDisruptionBudget":           func() any { return &policy.PodDisruptionBudget{} },
	"monitoring.coreos.com/v1 ServiceMonitor": func() any { return &monitoring.ServiceMonitor{} },
	"monitoring.coreos.com/v1 PrometheusRule": func() any { return &monitoring.PrometheusRule{} },
	"keda.sh/v1alpha1 ScaledObject":           func() any { return &map[string]any{} },
}

// manifest is what a text of several YAML documents declares.
type manifest struct {
	names   []string // kind/name, in order
	objects map[string]any
}

func one[T any](t *testing.T, m manifest, name string) T {
	t.Helper()
	o, ok := m.objects[name].(T)
	if !ok {
		t.Fatalf("got no %s, have %v", name, m.names)
	}
	return o
}

var separator = regexp.MustCompile(`(?m)^---.*$`)

// parse decodes every document strictly: an unknown or repeated field, or a value
// of another type, is an error, as it is for the API server.
func parse(t *testing.T, text string) manifest {
	t.Helper()
	m := manifest{objects: map[string]any{}}
	for _, doc := range separator.Split(text, -1) {
		var head struct {
			meta.TypeMeta   `json:",inline"`
			meta.ObjectMeta `json:"metadata"`
		}
		if err := yaml.Unmarshal([]byte(doc), &head); err != nil {
			t.Fatalf("not YAML: %v\n%s", err, doc)
		}
		if head.Kind == "" && head.Name == "" {
			continue // comments
		}
		name := head.Kind + "/" + head.Name
		make, known := kinds[head.APIVersion+" "+head.Kind]
		if !known {
			t.Errorf("%s %s is not among the kinds this test knows", head.APIVersion, name)
			continue
		}
		object := make()
		if err := yaml.UnmarshalStrict([]byte(doc), object); err != nil {
			t.Errorf("%s: %v\n%s", name, err, doc)
		}
		for _, wrong := range validation.IsDNS1123Subdomain(head.Name) {
			t.Errorf("%s: its name: %s", name, wrong)
		}
		for _, l := range []map[string]string{head.Labels, head.Annotations} {
			for key := range l {
				for _, wrong := range validation.IsQualifiedName(key) {
					t.Errorf("%s: label or annotation %q: %s", name, key, wrong)
				}
			}
		}
		for key, value := range head.Labels {
			for _, wrong := range validation.IsValidLabelValue(value) {
				t.Errorf("%s: label %s: %s", name, key, wrong)
			}
		}
		if m.objects[name] != nil {
			t.Errorf("%s is there twice", name)
		}
		m.names, m.objects[name] = append(m.names, name), object
	}
	return m
}

// pod is the template of a workload.
func pod(object any) (core.PodTemplateSpec, *meta.LabelSelector, bool) {
	switch o := object.(type) {
	case *apps.Deployment:
		return o.Spec.Template, o.Spec.Selector, true
	case *apps.StatefulSet:
		return o.Spec.Template, o.Spec.Selector, true
	case *batch.Job:
		return o.Spec.Template, nil, true
	case *core.Pod:
		return core.PodTemplateSpec{ObjectMeta: o.ObjectMeta, Spec: o.Spec}, nil, true
	}
	return core.PodTemplateSpec{}, nil, false
}

// consistent checks the references between objects: what is mounted exists, who
// selects finds, and no pod has rights it has no use for.
func consistent(t *testing.T, m manifest) {
	t.Helper()
	var members []labels.Set
	for name, object := range m.objects {
		template, selector, ok := pod(object)
		if !ok {
			continue
		}
		members = append(members, template.Labels)
		if selector != nil && !selects(t, selector, template.Labels) {
			t.Errorf("%s does not select its own pods", name)
		}
		mounts(t, name, m, template.Spec)
		locked(t, name, template.Spec)
	}
	for name, object := range m.objects {
		var selector *meta.LabelSelector
		switch o := object.(type) {
		case *core.Service:
			selector = &meta.LabelSelector{MatchLabels: o.Spec.Selector}
		case *policy.PodDisruptionBudget:
			selector = o.Spec.Selector
		case *networking.NetworkPolicy:
			selector = &o.Spec.PodSelector
		default:
			continue
		}
		if !slices.ContainsFunc(members, func(l labels.Set) bool { return selects(t, selector, l) }) {
			t.Errorf("%s selects no pod", name)
		}
	}
}

func selects(t *testing.T, s *meta.LabelSelector, l labels.Set) bool {
	t.Helper()
	selector, err := meta.LabelSelectorAsSelector(s)
	if err != nil {
		t.Errorf("selector: %v", err)
		return false
	}
	return !selector.Empty() && selector.Matches(l)
}

func mounts(t *testing.T, name string, m manifest, spec core.PodSpec) {
	t.Helper()
	volumes := map[string]bool{}
	for _, v := range spec.Volumes {
		volumes[v.Name] = false
		if v.ConfigMap != nil && v.ConfigMap.Optional == nil && m.objects["ConfigMap/"+v.ConfigMap.Name] == nil {
			t.Errorf("%s: volume %s: there is no ConfigMap %s", name, v.Name, v.ConfigMap.Name)
		}
	}
	for _, c := range spec.Containers {
		for _, mount := range c.VolumeMounts {
			if _, ok := volumes[mount.Name]; !ok {
				t.Errorf("%s: %s is mounted and is no volume", name, mount.Name)
			}
			if !mount.ReadOnly || mount.SubPath != "" {
				t.Errorf("%s: mount %s: got readOnly %v, subPath %q; a subPath never sees a changed file", name, mount.Name, mount.ReadOnly, mount.SubPath)
			}
			volumes[mount.Name] = true
		}
		for what, probe := range map[string]*core.Probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
			if probe == nil {
				continue
			}
			port := probe.HTTPGet.Port.StrVal
			if !slices.ContainsFunc(c.Ports, func(p core.ContainerPort) bool { return p.Name == port }) {
				t.Errorf("%s: the %s probe asks at port %q, which is none of %v", name, what, port, c.Ports)
			}
		}
	}
	for volume, mounted := range volumes {
		if !mounted {
			t.Errorf("%s: volume %s is not mounted", name, volume)
		}
	}
}

func locked(t *testing.T, name string, spec core.PodSpec) {
	t.Helper()
	if s := spec.SecurityContext; s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.SeccompProfile == nil || s.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
		t.Errorf("%s: got security context %+v, want a non-root user and seccomp RuntimeDefault", name, s)
	}
	if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		t.Errorf("%s: the bridge asks nothing of the API server and needs no token", name)
	}
	for _, c := range spec.Containers {
		s := c.SecurityContext
		if s == nil || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation ||
			s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) {
			t.Errorf("%s: got security context %+v, want a read-only root, no escalation, no capabilities", name, s)
		}
		if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Memory().Cmp(*c.Resources.Limits.Memory()) > 0 || c.Resources.Requests.Cpu().IsZero() {
			t.Errorf("%s: got resources %+v, want requests, and a limit of memory not below them", name, c.Resources)
		}
	}
}

// scaledObject validates an object against the schema of KEDA's own definition, in
// which nothing may stand that the schema does not name.
func scaledObject(t *testing.T, object any) {
	t.Helper()
	text, err := os.ReadFile("testdata/keda.sh_scaledobjects.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var crd struct {
		Spec struct {
			Versions []struct {
				Name   string
				Schema struct{ OpenAPIV3Schema map[string]any }
			}
		}
	}
	if err := yaml.Unmarshal(text, &crd); err != nil {
		t.Fatal(err)
	}
	schema := crd.Spec.Versions[0].Schema.OpenAPIV3Schema
	closed(schema)
	schema["properties"].(map[string]any)["metadata"] = map[string]any{"type": "object"}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("scaledobject.json", schema); err != nil {
		t.Fatal(err)
	}
	compiled, err := compiler.Compile("scaledobject.json")
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	var instance any
	if err := json.Unmarshal(data, &instance); err != nil {
		t.Fatal(err)
	}
	if err := compiled.Validate(instance); err != nil {
		t.Errorf("the ScaledObject does not match KEDA's schema: %v", err)
	}
}

// closed forbids, all the way down, properties that a schema does not name.
func closed(schema map[string]any) {
	if properties, ok := schema["properties"].(map[string]any); ok {
		if schema["x-kubernetes-preserve-unknown-fields"] != true && schema["additionalProperties"] == nil {
			schema["additionalProperties"] = false
		}
		for _, p := range slices.Collect(maps.Values(properties)) {
			closed(p.(map[string]any))
		}
	}
	if items, ok := schema["items"].(map[string]any); ok {
		closed(items)
	}
}
