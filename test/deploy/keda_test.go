package deploy_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// scaledObject is the part of KEDA's resource that the file may use, as
// https://keda.sh/docs/latest/reference/scaledobject-spec/ and
// https://keda.sh/docs/latest/scalers/prometheus/ describe it.
type scaledObject struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   struct{ Name string }
	Spec       struct {
		ScaleTargetRef  struct{ Name string } `yaml:"scaleTargetRef"`
		MinReplicaCount int                   `yaml:"minReplicaCount"`
		MaxReplicaCount int                   `yaml:"maxReplicaCount"`
		PollingInterval int                   `yaml:"pollingInterval"`
		Advanced        struct {
			HPA struct {
				Behavior map[string]struct {
					Window   int `yaml:"stabilizationWindowSeconds"`
					Policies []struct {
						Type          string
						Value         int
						PeriodSeconds int `yaml:"periodSeconds"`
					}
				}
			} `yaml:"horizontalPodAutoscalerConfig"`
		}
		Triggers []struct {
			Type       string
			MetricType string `yaml:"metricType"`
			// KEDA takes text only: a bare number or true is refused by the
			// API server. The kinds of the nodes are checked below.
			Metadata map[string]yaml.Node
		}
	}
}

// prometheusTrigger are the fields of KEDA's prometheus scaler.
var prometheusTrigger = []string{
	"serverAddress", "query", "queryParameters", "threshold", "activationThreshold", "namespace", "customHeaders", "ignoreNullValues", "unsafeSsl", "timeout", "authModes",
}

func TestScaledObject(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "deploy/keda-scaledobject.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var so scaledObject
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&so); err != nil {
		t.Fatalf("keda-scaledobject.yaml: %v", err)
	}
	if so.APIVersion != "keda.sh/v1alpha1" || so.Kind != "ScaledObject" || so.Metadata.Name == "" || so.Spec.ScaleTargetRef.Name != "bridge" {
		t.Errorf("got %s %s %q for %q, want a ScaledObject for the Deployment bridge", so.APIVersion, so.Kind, so.Metadata.Name, so.Spec.ScaleTargetRef.Name)
	}
	if s := so.Spec; s.MinReplicaCount < 1 || s.MaxReplicaCount < s.MinReplicaCount {
		t.Errorf("got %d to %d replicas; without a member nothing reports how far behind it is, so want at least 1", s.MinReplicaCount, s.MaxReplicaCount)
	}
	up, down := so.Spec.Advanced.HPA.Behavior["scaleUp"], so.Spec.Advanced.HPA.Behavior["scaleDown"]
	if len(up.Policies) == 0 || len(down.Policies) == 0 || down.Window < 300 || down.Window < up.Window {
		t.Errorf("got %+v and %+v; every step is a rebalance, so want bounded steps and a slow way down", up, down)
	}
	if len(so.Spec.Triggers) != 1 || so.Spec.Triggers[0].Type != "prometheus" || so.Spec.Triggers[0].MetricType != "Value" {
		t.Fatalf("got triggers %+v, want one of type prometheus and metric type Value", so.Spec.Triggers)
	}
	got := map[string]string{}
	for key, node := range so.Spec.Triggers[0].Metadata {
		if node.Tag != "!!str" {
			t.Errorf("%s: %s is %s, want a string: put it in quotes", key, node.Value, node.Tag)
		}
		if !slices.Contains(prometheusTrigger, key) {
			t.Errorf("%s is no field of KEDA's prometheus scaler", key)
		}
		got[key] = node.Value
	}
	if got["ignoreNullValues"] != "false" {
		t.Errorf("ignoreNullValues: got %q, want false: a Prometheus that lost its targets would scale down", got["ignoreNullValues"])
	}
	// A rebalance takes 3 s and an acknowledgement up to a second.
	if n, err := strconv.Atoi(got["threshold"]); err != nil || n < 5 {
		t.Errorf("threshold: got %q, want a number of seconds above a rebalance and an acknowledgement", got["threshold"])
	}
}

// The page shows the file as it is.
func TestScalingPageShowsTheScaledObject(t *testing.T) {
	file, err := os.ReadFile(filepath.Join(root, "deploy/keda-scaledobject.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "scaling.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "```yaml\n"+string(file)+"```\n") {
		t.Error("docs/scaling.md does not show deploy/keda-scaledobject.yaml as it is; copy the file into its yaml block")
	}
}
