package deploy_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// scaledObject is the part of KEDA's resource that the file may use, as
// https://keda.sh/docs/latest/reference/scaledobject-spec/ and
// https://keda.sh/docs/latest/scalers/apache-kafka/ describe it.
type scaledObject struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   struct{ Name string }
	Spec       struct {
		ScaleTargetRef  struct{ Name string } `yaml:"scaleTargetRef"`
		MinReplicaCount int                   `yaml:"minReplicaCount"`
		MaxReplicaCount int                   `yaml:"maxReplicaCount"`
		PollingInterval int                   `yaml:"pollingInterval"`
		Fallback        struct {
			FailureThreshold int `yaml:"failureThreshold"`
			Replicas         int
		}
		Advanced struct {
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
			Type string
			// KEDA takes text only: a bare number or true is refused by the
			// API server. The kinds of the nodes are checked below.
			Metadata map[string]yaml.Node
		}
	}
}

// kafkaTrigger are the fields of KEDA's kafka scaler.
var kafkaTrigger = []string{
	"bootstrapServers", "consumerGroup", "topic", "lagThreshold", "activationLagThreshold", "offsetResetPolicy",
	"allowIdleConsumers", "scaleToZeroOnInvalidOffset", "excludePersistentLag", "limitToPartitionsWithLag", "version", "partitionLimitation",
	"ensureEvenDistributionOfPartitions", "tls", "sasl",
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
	if s := so.Spec; s.MinReplicaCount < 1 || s.MaxReplicaCount < s.MinReplicaCount || s.Fallback.Replicas < s.MinReplicaCount || s.Fallback.Replicas > s.MaxReplicaCount {
		t.Errorf("got %d to %d replicas and %d to fall back on; nothing starts a bridge that is scaled to none but lag, so want at least 1, and the fallback in between",
			s.MinReplicaCount, s.MaxReplicaCount, s.Fallback.Replicas)
	}
	up, down := so.Spec.Advanced.HPA.Behavior["scaleUp"], so.Spec.Advanced.HPA.Behavior["scaleDown"]
	if len(up.Policies) == 0 || len(down.Policies) == 0 || down.Window < 300 || down.Window < up.Window {
		t.Errorf("got %+v and %+v; every step is a rebalance, so want bounded steps and a slow way down", up, down)
	}
	if len(so.Spec.Triggers) != 1 || so.Spec.Triggers[0].Type != "kafka" {
		t.Fatalf("got triggers %+v, want one of type kafka", so.Spec.Triggers)
	}
	got := map[string]string{}
	for key, node := range so.Spec.Triggers[0].Metadata {
		if node.Tag != "!!str" {
			t.Errorf("%s: %s is %s, want a string: put it in quotes", key, node.Value, node.Tag)
		}
		known := false
		for _, k := range kafkaTrigger {
			known = known || k == key
		}
		if !known {
			t.Errorf("%s is no field of KEDA's kafka scaler", key)
		}
		got[key] = node.Value
	}
	for key, want := range map[string]string{
		"allowIdleConsumers": "false", "excludePersistentLag": "true", "limitToPartitionsWithLag": "true",
	} {
		if got[key] != want {
			t.Errorf("%s: got %q, want %q", key, got[key], want)
		}
	}
	// KEDA sees committed offsets, which lag by a commit interval even where
	// nothing is behind: below two seconds' worth it would scale on that.
	if n, err := strconv.Atoi(got["lagThreshold"]); err != nil || n < 2*140_000 {
		t.Errorf("lagThreshold: got %q, want a number above two seconds of what a member carries", got["lagThreshold"])
	}
	text, err = os.ReadFile(filepath.Join(root, "config.example.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var example struct {
		Kafka struct {
			Group, Start string
			Topics       []string
		}
	}
	if err := yaml.Unmarshal(text, &example); err != nil {
		t.Fatal(err)
	}
	if got["consumerGroup"] != example.Kafka.Group || got["topic"] != example.Kafka.Topics[0] || got["offsetResetPolicy"] != example.Kafka.Start {
		t.Errorf("group %q, topic %q and start %q are not those of config.example.yaml: %q, %q, %q", got["consumerGroup"], got["topic"], got["offsetResetPolicy"],
			example.Kafka.Group, example.Kafka.Topics[0], example.Kafka.Start)
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
