package ops_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/ops"
	"github.com/datafly/bridge/internal/ops/access"
)

// deployed is a deployment of two integrations, of which one has a problem.
func deployed() ops.GroupStatus {
	return ops.GroupStatus{
		Scope: ops.ScopeGroup, Time: now, Deployment: "d", Kafka: ops.KafkaLookUp{OK: true, At: now},
		Problems:     []consumer.NotReady{{Integration: "orders", Code: "member_not_answering", Text: "member m1\x1b[2J does not answer", Remedy: "see its log"}},
		Peers:        []ops.Peer{{Address: "10.0.0.1:9400", Self: true, OK: true, Version: "v1", State: ops.StateRunning, Instance: "i1"}},
		Integrations: []ops.GroupIntegration{{Integration: "orders", Group: "d-orders"}, {Integration: "carts", Group: "d-carts"}},
	}
}

func TestScopesOfTheStatus(t *testing.T) {
	asked := 0
	group := func(context.Context) ops.GroupStatus { asked++; return deployed() }
	state := healthy()
	state.Integrations[0].History = &ops.History{StepSeconds: 5, Rows: ops.Series{1, 2, 3}}
	source := fixed(state)
	with := start(t, ops.Config{Group: group}, registry(source), source, zap.NewNop())
	without := start(t, ops.Config{}, registry(source), source, zap.NewNop())
	guarded := start(t, ops.Config{Group: group, Access: access.New(func() (string, error) { return "0123456789abcdef", nil }, true)}, registry(source), source, zap.NewNop())
	for _, tc := range []struct {
		url    string
		status int
		body   string // of what is in it
		asked  int
	}{
		{with + "/status", 200, `"integration": "default"`, 0},
		{with + "/status?scope=process", 200, `"integration": "default"`, 0},
		{with + "/status?scope=process&integration=default", 200, `"integration": "default"`, 0},
		{with + "/status?history=true", 200, `"step_seconds": 15`, 0},
		{with + "/status?integration=carts", 404, "/status lists them", 0},
		{with + "/status?scope=group", 200, `"scope": "group"`, 1},
		{with + "/status?scope=group&integration=orders", 200, `"ready": false`, 1},
		{with + "/status?scope=group&integration=carts", 200, `"ready": true`, 1},
		{with + "/status?scope=group&integration=default", 404, "/status lists them", 1},
		{with + "/status?scope=planet", 400, "process or group", 0},
		{without + "/status?scope=group", 400, "process or group", 0},
		{guarded + "/status?scope=group", 401, "ops.token", 0},
	} {
		asked = 0
		got := ask(t, http.MethodGet, tc.url)
		if got.status != tc.status || !strings.Contains(got.body, tc.body) || asked != tc.asked {
			t.Errorf("%s: got %d %s after %d look-ups, want %d with %q after %d", tc.url, got.status, got.body, asked, tc.status, tc.body, tc.asked)
		}
		if strings.Contains(got.body, "step_seconds") != strings.Contains(tc.url, "history=true") {
			t.Errorf("%s: got a history that was not asked for, or none: %s", tc.url, got.body)
		}
		var s ops.GroupStatus
		if strings.HasSuffix(tc.url, "=carts") && tc.status == 200 && (json.Unmarshal([]byte(got.body), &s) != nil || s.Problems == nil || len(s.Integrations) != 1 || len(s.Peers) != 1) {
			t.Errorf("%s: got %+v, want one integration, the peer and no problems, but their list", tc.url, s)
		}
	}
}

// The remedy of not_delivering names this view for the reasons.
func TestGroupTextHasTheReasonsOfMembers(t *testing.T) {
	s := deployed()
	s.Integrations[0].Members = []ops.GroupMember{
		{MemberID: "m1", Answering: new(true), NotReady: []consumer.NotReady{{Code: "sink_blocked", Text: "no grant", Remedy: "run: GRANT"}}},
		{Peer: "10.0.0.1:9400", Answering: new(true), NotReady: []consumer.NotReady{{Code: "integration_failed", Text: "no table"}}},
	}
	var all, short strings.Builder
	if err := errors.Join(s.WriteText(&all, true), s.WriteText(&short, false)); err != nil {
		t.Fatal(err)
	}
	want := "  m1: sink_blocked: no grant\n  remedy: run: GRANT\n  10.0.0.1:9400: integration_failed: no table\n"
	if !strings.Contains(all.String(), want) || strings.Contains(short.String(), "no grant") {
		t.Errorf("got\n%s\nwant in it\n%s\nand not in\n%s", all.String(), want, short.String())
	}
}

func TestGroupTextObeysNothing(t *testing.T) {
	var b strings.Builder
	if err := deployed().WriteText(&b, false); err != nil {
		t.Fatal(err)
	}
	if text := b.String(); strings.Contains(text, "\x1b") || !strings.HasPrefix(text, "PROBLEMS ") || strings.Contains(text, "PARTITION\t") {
		t.Errorf("got\n%s\nwant the problems first, and no escape", text)
	}
}
