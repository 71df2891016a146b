package app

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/await"
	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/ops"
)

// freeAddress returns an address of the loopback that nobody else uses: on Linux, of an
// IP that only this call has.
func freeAddress(t *testing.T) string {
	t.Helper()
	ip := "127.0.0.1"
	if runtime.GOOS == "linux" {
		ip = fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", ip+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (s *stage) group(a *App, path string) (g ops.GroupStatus) {
	s.t.Helper()
	if text := s.get(a, path); json.Unmarshal([]byte(text), &g) != nil || g.Scope != ops.ScopeGroup {
		s.t.Fatalf("%s: got %s", path, text)
	}
	return g
}

// text is the state in one line; members are named by the address of their peer.
func groupText(g ops.GroupStatus) string {
	var b strings.Builder
	names := map[string]string{}
	for _, i := range g.Integrations {
		fmt.Fprintf(&b, "%s %d/%d answer, %d deliver;", i.State, i.Answering, len(i.Members), i.Delivering)
		for _, m := range i.Members {
			names[m.MemberID] = m.Peer
		}
		for _, p := range i.Partitions {
			fmt.Fprintf(&b, " %d: %d of %d, lag %d, at %s;", p.Partition, p.Committed, p.End, p.Lag, names[p.MemberID])
		}
		fmt.Fprintf(&b, " %d rows", i.Totals.RowsDelivered)
	}
	return b.String()
}

func TestEachMemberAnswersForTheGroup(t *testing.T) {
	for _, protocol := range []string{"classic", "consumer"} {
		t.Run(protocol, func(t *testing.T) { eachAnswers(t, newStage(t), "kafka.protocol="+protocol) })
	}
}

func eachAnswers(t *testing.T, s *stage, protocol string) {
	t.Helper()
	topic := kafkatest.Topic(t, s.kafka, 2)
	addresses := []string{freeAddress(t), freeAddress(t)}
	peers := "ops.peers=" + strings.Join(addresses, ",")
	var apps []*App
	var stops []func()
	for _, address := range addresses {
		a, stop := s.run(s.integration("default", topic, tableName, "ops.address="+address, peers, protocol))
		apps, stops = append(apps, a), append(stops, stop)
	}
	defer func() { stops[0]() }()
	var text string
	last := func() string { return text }
	for _, a := range apps {
		await.That(t, "the answer of "+a.Addr()+" for both", func() bool {
			g := s.group(a, "/status?scope=group")
			text = groupText(g)
			owners := map[string]bool{}
			for _, i := range g.Integrations {
				for _, p := range i.Partitions {
					owners[p.Peer] = p.State != ""
				}
			}
			return strings.HasPrefix(text, "Stable 2/2 answer, 2 deliver;") && owners[addresses[0]] && owners[addresses[1]] && g.Ready && len(g.Peers) == 2
		}, last)
	}
	// This process comes first.
	for i, p := range s.group(apps[1], "/status?scope=group").Peers {
		if want := addresses[1-i]; p.Address != want || p.Self != (i == 0) || p.Instance == "" {
			t.Errorf("got peer %+v, want %s", p, want)
		}
	}
	stops[1]()
	await.That(t, "the other named, and its partition moved", func() bool {
		g := s.group(apps[0], "/status?scope=group")
		text = fmt.Sprint(groupText(g), g.Problems)
		return strings.HasPrefix(text, "Stable 1/1 answer, 1 deliver;") && len(g.Problems) == 1 && g.Problems[0].Code == "peer_not_answering" &&
			strings.Contains(g.Problems[0].Text, addresses[1]) && strings.Count(text, "at "+addresses[0]) == 2
	}, last)
}

func TestGroupWithoutPeers(t *testing.T) {
	s := newStage(t)
	a, stop := s.run(s.integration("default", s.topic, tableName))
	defer stop()
	s.produce(`{"message_id":"1"}`, "")
	var text string
	await.That(t, "the delivered event", func() bool {
		g := s.group(a, "/status?scope=group")
		text = groupText(g)
		return text == "Stable 1/1 answer, 1 deliver; 0: 1 of 1, lag 0, at "+a.Addr()+"; 1 rows" && !g.PeersConfigured && g.Ready
	}, func() string { return text })
	if text := s.get(a, "/status?scope=planet"); text != "scope must be process or group\n" {
		t.Errorf("got %q, want the scopes", text)
	}
}
