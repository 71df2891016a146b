package observetest_test

import (
	"fmt"
	"testing"

	"go.yaml.in/yaml/v3"
)

// scaling has promtool compute the replicas that the autoscaler asks for, with the query
// and the numbers of deploy/keda-scaledobject.yaml: ceil(replicas * value / threshold),
// within the bounds.
func scaling(t *testing.T, promtool func(...string) (string, error)) {
	var so struct {
		Spec struct {
			Min      int `yaml:"minReplicaCount"`
			Max      int `yaml:"maxReplicaCount"`
			Triggers []struct{ Metadata map[string]string }
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, "deploy/keda-scaledobject.yaml")), &so); err != nil {
		t.Fatal(err)
	}
	query, threshold := so.Spec.Triggers[0].Metadata["query"], so.Spec.Triggers[0].Metadata["threshold"]
	if wrong, _ := problems(query, series(t)); len(wrong) > 0 {
		t.Errorf("%s: %v", query, wrong)
	}
	behind := func(instance, integration, seconds string) object {
		return object{"series": fmt.Sprintf(`bridge_seconds_behind{namespace="datafly", job="bridge", instance=%q, integration=%q}`, instance, integration), "values": seconds + "x60"}
	}
	for _, tc := range []struct {
		name              string
		series            []object
		replicas, desired int
	}{
		// 2,000 events/s and 60,000 events of lag: the rate does not matter.
		{"an ordinary stream, 30 s behind", []object{behind("a", "orders", "30"), behind("b", "orders", "28"), behind("a", "clicks", "0.4")}, 2, 4},
		{"the same with four members, which still fall behind", []object{behind("a", "orders", "30")}, 4, 8},
		{"more than there are partitions", []object{behind("a", "orders", "600")}, 8, so.Spec.Max},
		{"keeping up", []object{behind("a", "orders", "0.4"), behind("b", "clicks", "2")}, 2, so.Spec.Min},
		{"kept up, with more members than needed", []object{behind("a", "orders", "1")}, 6, so.Spec.Min},
		// A blocked integration has no series.
		{"one integration blocked, the other keeps up", []object{behind("a", "clicks", "1")}, 2, so.Spec.Min},
		// Another deployment of the same Prometheus.
		{"a neighbour falls behind", []object{behind("a", "clicks", "1"),
			{"series": `bridge_seconds_behind{namespace="other", job="bridge", instance="c", integration="orders"}`, "values": "900x60"}}, 2, so.Spec.Min},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ask(t, promtool, tc.series, []object{{
				"expr":      fmt.Sprintf("clamp(ceil(%d * (%s) / %s), %d, %d)", tc.replicas, query, threshold, so.Spec.Min, so.Spec.Max),
				"eval_time": "30m", "exp_samples": []object{{"labels": "{}", "value": tc.desired}},
			}})
		})
	}
	t.Run("no answer, so that the number stays, while all are blocked", func(t *testing.T) {
		ask(t, promtool, []object{{"series": `bridge_ready{namespace="datafly", job="bridge", instance="a", integration="orders"}`, "values": "0x60"}},
			[]object{{"expr": query, "eval_time": "30m", "exp_samples": []object{}}})
	})
}
