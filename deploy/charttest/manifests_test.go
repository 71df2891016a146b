package charttest_test

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

func TestPlainManifests(t *testing.T) {
	m := parse(t, read(t, "deploy/kubernetes/bridge.yaml")+"\n---\n"+read(t, "deploy/kubernetes/replay-job.yaml"))
	consistent(t, m)
	cfg := loadConfig(t, configMap(t, m).Data["config.yaml"])

	d := one[*apps.Deployment](t, m, "Deployment/bridge")
	job := one[*batch.Job](t, m, "Job/bridge-replay")
	for name, template := range map[string]core.PodTemplateSpec{"Deployment": d.Spec.Template, "Job": job.Spec.Template} {
		if grace := time.Duration(*template.Spec.TerminationGracePeriodSeconds) * time.Second; grace <= cfg.Delivery.Drain {
			t.Errorf("%s: got a grace period of %s, want more than delivery.drain, %s", name, grace, cfg.Delivery.Drain)
		}
		limit := template.Spec.Containers[0].Resources.Limits.Memory().Value() >> 20
		if got, want := template.Spec.Containers[0].Env[0].Value, fmt.Sprintf("%dMiB", limit*80/100); got != want {
			t.Errorf("%s: got GOMEMLIMIT %s, want %s, 80 %% of the limit", name, got, want)
		}
	}
	if args := job.Spec.Template.Spec.Containers[0].Args; args[4] == cfg.Kafka.Group {
		t.Errorf("the replay reads in group %s, the deployment's", args[4])
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

// Every command line of the manifests is tried on the command itself: with --help
// a known command with known flags prints its help and a wrong one fails.
func TestCommandsExist(t *testing.T) {
	bridge := filepath.Join(t.TempDir(), "bridge")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	build := exec.CommandContext(ctx, "go", "build", "-o", bridge, "./cmd/bridge")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the bridge: %v\n%s", err, bytes.TrimSpace(out))
	}
	help := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, bridge, append(args[:len(args):len(args)], "--help")...).CombinedOutput()
		return string(out), err
	}
	if _, err := help("run", "--no-such-flag"); err == nil {
		t.Fatal("an unknown flag passes, so this test proves nothing")
	}
	text := joined(mustRender(t, values(t, minimal, everything))) + "\n---\n" + read(t, "deploy/kubernetes/replay-job.yaml")
	m := parse(t, text+"\n---\n"+strings.ReplaceAll(read(t, "deploy/kubernetes/bridge.yaml"), "name: bridge", "name: plain"))
	tried := 0
	for name, object := range m.objects {
		template, _, ok := pod(object)
		if !ok {
			continue
		}
		for _, c := range template.Spec.Containers {
			out, err := help(c.Args...)
			if err != nil || !strings.Contains(out, "bridge "+c.Args[0]+" ") {
				t.Errorf("%s: bridge %s: %v\n%s", name, strings.Join(c.Args, " "), err, out)
			}
			tried++
		}
	}
	if want := 5; tried != want {
		t.Errorf("tried %d command lines, want %d: two deployments, two replays, the check", tried, want)
	}
}
