package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/datafly/bridge/consumer"
	"github.com/datafly/bridge/internal/ops"
)

// serveGroup runs the ops endpoints of a bridge whose group is in the state g.
func serveGroup(t *testing.T, g ops.GroupStatus) string {
	t.Helper()
	return serveOps(t, ops.Config{Group: func(context.Context) ops.GroupStatus { return g }}, readyStatus)
}

// twoMembers is a group of which one member does not answer, if lost.
func twoMembers(lost bool) ops.GroupStatus {
	g := ops.GroupStatus{
		Scope: ops.ScopeGroup, Ready: !lost, PeersConfigured: true, Kafka: ops.KafkaLookUp{OK: true}, Problems: []consumer.NotReady{},
		Peers: []ops.Peer{{Address: "10.0.0.1:9400", Self: true, OK: true}, {Address: "10.0.0.2:9400", OK: !lost}},
		Integrations: []ops.GroupIntegration{{
			Integration: "default", Group: "zerobus-bridge", State: "Stable", Answering: 2, Delivering: 2, Lag: 7,
			Members:    []ops.GroupMember{{MemberID: "m1", Answering: new(true)}, {MemberID: "m2", Answering: new(!lost)}},
			Partitions: []ops.GroupPartition{{Topic: "events", Partition: 3, MemberID: "m2", Lag: 7}},
		}},
	}
	if lost {
		g.Problems = []consumer.NotReady{{Integration: "default", Code: "member_not_answering", Text: "member m2 does not answer", Remedy: "see its log"}}
	}
	return g
}

func TestStatusOfTheGroup(t *testing.T) {
	code, out, errs := status(t, "--scope", "group", "--address", serveGroup(t, twoMembers(false)))
	if code != exitFine || errs != "" || !strings.Contains(out, "2 of 2 processes answer") || !strings.Contains(out, "zerobus-bridge") || strings.Contains(out, "events/3") {
		t.Errorf("got exit code %d, stderr %q and\n%s\nwant %d and the tables without partitions", code, errs, out, exitFine)
	}
	address := serveGroup(t, twoMembers(true))
	code, out, errs = status(t, "--scope", "group", "--integration", "default", "--address", address)
	if code != exitFailed || errs != "try: bridge help troubleshooting member_not_answering\n" {
		t.Errorf("got exit code %d and stderr %q, want %d and where the reason is explained", code, errs, exitFailed)
	}
	for _, want := range []string{"default: member_not_answering: member m2", "remedy: see its log", "NO ANSWER", "events/3"} {
		if !strings.Contains(out, want) {
			t.Errorf("got\n%s\nwant %q in it", out, want)
		}
	}
	code, out, _ = status(t, "--scope", "group", "--output", "json", "--address", address)
	var g ops.GroupStatus
	if err := json.Unmarshal([]byte(out), &g); err != nil || code != exitFailed || len(g.Peers) != 2 {
		t.Errorf("got exit code %d, %v and %s, want the JSON of the group", code, err, out)
	}
}

func TestStatusOfOneIntegration(t *testing.T) {
	address := serveStatus(t, statusOf(working("orders"), refused("carts")))
	if code, out, errs := status(t, "--integration", "orders", "--address", address); code != exitFine || errs != "" || !strings.Contains(out, "orders") || strings.Contains(out, "carts") {
		t.Errorf("got exit code %d, stderr %q and\n%s\nwant orders alone", code, errs, out)
	}
	if code, _, errs := status(t, "--integration", "other", "--address", address); code != exitFailed || !strings.Contains(errs, "no integration other\ntry: bridge status --address "+address) {
		t.Errorf("got exit code %d and %q, want what is wrong", code, errs)
	}
}

func TestStatusOfTheGroupIsMisused(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"--scope planet", "process"},
		{"--scope group --ready", "ready"},
		{"--integration a --ready", "ready"},
	} {
		if code, _, errs := status(t, strings.Fields(tc.args)...); code != exitUsage || !strings.Contains(errs, tc.want) {
			t.Errorf("%s: got exit code %d and %q, want %d and %q", tc.args, code, errs, exitUsage, tc.want)
		}
	}
	// A bridge from before answers every scope with its own status.
	old := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(readyStatus()) }))
	defer old.Close()
	if code, out, errs := status(t, "--scope", "group", "--address", old.URL); code != exitFailed || out != "" || !strings.Contains(errs, "of this version") {
		t.Errorf("got exit code %d, %q and %q, want an error", code, out, errs)
	}
}
