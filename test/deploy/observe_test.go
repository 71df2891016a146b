package deploy_test

import (
	"context"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/zap/zaptest"

	"github.com/datafly/bridge/internal/ops"
)

var (
	askedWords  = regexp.MustCompile(`(\w+)(?:=|=~|!=|!~)\\?"(\w+(?:\|\w+)*)\\?"`)
	servedWords = regexp.MustCompile(`(\w+)="([^"]*)"`)
)

// A rule about a state that does not exist never fires. The words of the labels
// are there from the start, so a bridge that has done nothing shows them all. The
// names of metrics and labels are held by deploy/observetest.
func TestRulesAndDashboardAskForWordsThatExist(t *testing.T) {
	exists := map[string]bool{"alertstate firing": true} // Prometheus' own
	for _, m := range servedWords.FindAllStringSubmatch(metrics(t), -1) {
		exists[m[1]+" "+m[2]] = true
	}
	for _, name := range []string{"deploy/prometheus/rules.yaml", "deploy/grafana/bridge.json", "docs/metrics.md"} {
		asked := askedWords.FindAllStringSubmatch(read(t, name), -1)
		if len(asked) < 3 {
			t.Errorf("%s: got %d words, want 3 or more, or this test proves nothing", name, len(asked))
		}
		for _, m := range asked {
			for _, word := range strings.Split(m[2], "|") {
				if !exists[m[1]+" "+word] {
					t.Errorf("%s asks for %s, and no metric has a label %s with the value %s", name, m[0], m[1], word)
				}
			}
		}
	}
}

// metrics is what a bridge serves that has just begun.
func metrics(t *testing.T) string {
	t.Helper()
	idle := func() ops.Status {
		return ops.NewStatus(ops.Status{}, []ops.IntegrationStatus{{Integration: "default"}})
	}
	registry := ops.NewMetrics("", idle, true)
	registry.Integration("default", ops.Known{})
	s := ops.New(ops.Config{Settings: ops.Settings{Address: "127.0.0.1:0"}}, registry, idle, zaptest.NewLogger(t))
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Addr()+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
