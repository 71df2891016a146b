package charttest_test

import (
	"fmt"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

func TestPlainManifests(t *testing.T) {
	m := parse(t, read(t, "deploy/kubernetes/bridge.yaml")+"\n---\n"+read(t, "deploy/kubernetes/replay-job.yaml"))
	consistent(t, m)
	configured(t, m)

	d := one[*apps.Deployment](t, m, "Deployment/bridge")
	job := one[*batch.Job](t, m, "Job/bridge-replay")
	for name, template := range map[string]core.PodTemplateSpec{"Deployment": d.Spec.Template, "Job": job.Spec.Template} {
		limit := template.Spec.Containers[0].Resources.Limits.Memory().Value() >> 20
		if got, want := template.Spec.Containers[0].Env[0].Value, fmt.Sprintf("%dMiB", limit*80/100); got != want {
			t.Errorf("%s: got GOMEMLIMIT %s, want %s, 80 %% of the limit", name, got, want)
		}
	}
	if args := job.Spec.Template.Spec.Containers[0].Args; args[3] != "--group" || args[4] == "zerobus-bridge" {
		t.Errorf("the replay reads in %s %s, want a group that is not the deployment's", args[3], args[4])
	}
}

// The two comments of the plain manifest replace its Secret by a projected token.
func TestPlainManifestWithATokenExchange(t *testing.T) {
	lines := strings.Split(read(t, "deploy/kubernetes/bridge.yaml"), "\n")
	replaced := 0
	for i, line := range lines {
		if strings.Contains(line, " # or, without a secret") {
			lines[i], lines[i+1] = "", strings.Replace(lines[i+1], "# ", "", 1)
			replaced++
		}
	}
	if replaced != 2 {
		t.Fatalf("replaced %d lines, want 2", replaced)
	}
	m := parse(t, strings.Join(lines, "\n"))
	consistent(t, m)
	configured(t, m)
	for _, v := range one[*apps.Deployment](t, m, "Deployment/bridge").Spec.Template.Spec.Volumes {
		if v.Secret != nil || v.Name == "zerobus" && v.Projected.Sources[0].ServiceAccountToken.Audience != "databricks" {
			t.Errorf("volume %s is %+v, want no Secret and a token for databricks", v.Name, v.VolumeSource)
		}
	}
}

// The plain manifest is what the chart makes of its defaults, so that neither is
// forgotten when the other changes.
func TestPlainManifestRunsWhatTheChartRuns(t *testing.T) {
	plain := parse(t, read(t, "deploy/kubernetes/bridge.yaml"))
	chart := parse(t, joined(mustRender(t, values(t, minimal, `blueprint: "version: 2"`))))
	got, want := one[*apps.Deployment](t, plain, "Deployment/bridge").Spec, one[*apps.Deployment](t, chart, "Deployment/bridge").Spec
	g, w := got.Template.Spec.Containers[0], want.Template.Spec.Containers[0]
	for what, pair := range map[string][2]any{
		"replicas":             {*got.Replicas, *want.Replicas},
		"spread":               {spread(got.Template.Spec), spread(want.Template.Spec)},
		"strategy":             {got.Strategy.RollingUpdate, want.Strategy.RollingUpdate},
		"grace period":         {*got.Template.Spec.TerminationGracePeriodSeconds, *want.Template.Spec.TerminationGracePeriodSeconds},
		"image":                {g.Image, w.Image},
		"arguments":            {g.Args, w.Args},
		"variables":            {g.Env, w.Env},
		"mounts":               {g.VolumeMounts, w.VolumeMounts},
		"resources":            {g.Resources, w.Resources},
		"security":             {g.SecurityContext, w.SecurityContext},
		"security of the pod":  {got.Template.Spec.SecurityContext, want.Template.Spec.SecurityContext},
		"where the probes ask": {g.ReadinessProbe.HTTPGet, w.ReadinessProbe.HTTPGet},
	} {
		if !equality.Semantic.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s: deploy/kubernetes/bridge.yaml has %+v, the chart %+v", what, pair[0], pair[1])
		}
	}
}

func spread(pod core.PodSpec) (keys []string) {
	for _, c := range pod.TopologySpreadConstraints {
		keys = append(keys, c.TopologyKey)
	}
	return keys
}
