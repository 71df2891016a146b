package live

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/ops"
)

// Each process has what it runs; members that no process reports are listed alone.
func TestMembers(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	got := membersOf(ops.GroupStatus{
		Time: at, PeersConfigured: true,
		Peers: []ops.Peer{
			{Address: "10.0.0.1:9400", Self: true, OK: true, Version: "v1", State: "running", Started: at.Add(-time.Hour), BufferedBytes: 5, BufferedLimit: 9},
			{Address: "10.0.0.2:9400", Error: "connection refused", Since: at.Add(-time.Minute)},
		},
		Integrations: []ops.GroupIntegration{
			{Integration: "web", Name: "Web", Members: []ops.GroupMember{
				{MemberID: "m1", Peer: "10.0.0.1:9400", State: "running", Ready: true, Partitions: 2, Answering: new(true)},
				{MemberID: "m2", ClientID: "bridge", Host: "10.0.0.2", Partitions: 1, Answering: new(false)},
			}},
			{Integration: "orders", Name: "Orders", Members: []ops.GroupMember{{Peer: "10.0.0.1:9400", State: "failed"}}},
		},
	})
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"time":"2026-03-01T12:00:00Z","peers_configured":true,"kafka":{"ok":false},"members":[` +
		`{"address":"10.0.0.1:9400","self":true,"ok":true,"version":"v1","state":"running","started":"2026-03-01T11:00:00Z","buffered_bytes":5,"buffered_limit_bytes":9,` +
		`"integrations":[{"integration":"web","name":"Web","state":"running","ready":true,"partitions":2},{"integration":"orders","name":"Orders","state":"failed","ready":false,"partitions":0}]},` +
		`{"address":"10.0.0.2:9400","self":false,"ok":false,"error":"connection refused","since":"2026-03-01T11:59:00Z","buffered_bytes":0,"buffered_limit_bytes":0,"integrations":[]}],` +
		`"unreported":[{"integration":"web","member_id":"m2","client_id":"bridge","host":"10.0.0.2","partitions":1,"answering":false}]}`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}
