package ops_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/zap/zaptest"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/ops"
)

// A store with a thousand integrations does not make /status too large for a peer, which
// reads 4 MiB. What runs is listed in any case, and each one can be asked for.
func TestStatusOfManyIntegrations(t *testing.T) {
	var all []ops.IntegrationStatus
	for n := range 1000 {
		i := named(fmt.Sprintf("i-%d", n), ops.IntegrationStatus{State: ops.StateDisabled})
		i.Config = map[string]string{"text": strings.Repeat("c", 4000)}
		switch {
		case n%50 == 0:
			i.State = ops.StateRunning
		case n%2 == 0:
			i.State, i.Reason = ops.StateBlocked, strings.Repeat("r", 2000)
			i.NotReady = []consumer.NotReady{{Code: "integration_blocked", Text: i.Reason}}
		}
		all = append(all, i)
	}
	source := fixed(process(all...))
	url := start(t, ops.Config{}, registry(source), source, zaptest.NewLogger(t))
	get := func(path string) (s ops.Status, size int) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal(body, &s) != nil {
			t.Fatalf("%s: got %s, %v", path, resp.Status, err)
		}
		return s, len(body)
	}
	s, size := get("/status")
	running := 0
	for _, i := range s.Integrations {
		if i.State == ops.StateRunning {
			running++
		}
		if i.Config != nil {
			t.Fatalf("%s has its configuration, want none of so many", i.Integration)
		}
	}
	if running != 20 || len(s.Integrations) != 120 || s.LeftOut != 880 || len(s.NotReady) != 101 || size > 1<<20 {
		t.Errorf("got %d running of %d, %d left out, %d reasons, %d bytes", running, len(s.Integrations), s.LeftOut, len(s.NotReady), size)
	}
	if one, _ := get("/status?integration=i-998"); len(one.Integrations) != 1 || one.Integrations[0].Config == nil {
		t.Errorf("got %+v, want all of the one", one.Integrations)
	}
}
