package main

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// kubelet reports every pod of the namespace as running and ready, and that of helm test
// as succeeded. No container runs.
type kubelet struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// pod is the part of a pod that the checks read.
type pod struct {
	Metadata metadata
	Spec     podSpec
	Status   struct{ Phase string }
}

type metadata struct {
	Name              string
	Generation        int64
	DeletionTimestamp string
	Labels            map[string]string
}

func newKubelet(ctx context.Context, c *cluster) *kubelet {
	ctx, cancel := context.WithCancel(ctx)
	k := &kubelet{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(k.done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for addresses := 0; ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			pods, err := c.pods(ctx, "")
			if err != nil {
				continue // whoever waits for the pods reports it
			}
			for _, p := range pods {
				if p.Status.Phase != "Pending" || p.Metadata.DeletionTimestamp != "" {
					continue
				}
				addresses++
				_ = c.api(ctx, http.MethodPatch, podsPath+"/"+p.Metadata.Name+"/status", status(p, addresses), nil) // tried again
			}
		}
	}()
	return k
}

func (k *kubelet) stop() {
	k.cancel()
	<-k.done
}

// status is what a kubelet would report. The pods have been ready for an hour, so that
// minReadySeconds has passed.
func status(p pod, n int) map[string]any {
	if p.Metadata.Labels["app.kubernetes.io/component"] == "check" {
		return map[string]any{"status": map[string]any{"phase": "Succeeded"}}
	}
	ip := fmt.Sprintf("10.1.%d.%d", n/250, n%250+1)
	return map[string]any{"status": map[string]any{
		"phase": "Running", "podIP": ip, "podIPs": []any{map[string]any{"ip": ip}},
		"conditions": []any{map[string]any{
			"type": "Ready", "status": "True", "lastTransitionTime": time.Now().Add(-time.Hour).UTC().Format(time.RFC3339),
		}},
	}}
}

const podsPath = "/api/v1/namespaces/" + namespace + "/pods"

// pods returns those of the namespace that have a label; all without one.
func (c *cluster) pods(ctx context.Context, label string) ([]pod, error) {
	var list struct{ Items []pod }
	err := c.api(ctx, http.MethodGet, podsPath+"?labelSelector="+label, nil, &list)
	return list.Items, err
}
