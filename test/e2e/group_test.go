package e2e_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/internal/ops"
)

// group returns what a member answers for the group; ok is false without an answer.
func (m *member) group(token string) (g ops.GroupStatus, ok bool) {
	m.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+m.address+"/status?scope=group", nil)
	if err != nil {
		m.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := browser.Do(req)
	if err != nil {
		return g, false
	}
	defer resp.Body.Close()
	return g, json.NewDecoder(resp.Body).Decode(&g) == nil && len(g.Integrations) == 1
}

// Two processes, each of which answers for both. One is killed: it is named until its
// session ends.
func TestEachMemberAnswersForTheWholeGroup(t *testing.T) {
	eachStage(t, setting{partitions: 4}, func(t *testing.T, s *stage) {
		const token = "open-sesame-open-sesame"
		s.e.secret("the ops token", token)
		file := filepath.Join(t.TempDir(), "token")
		must(t, os.WriteFile(file, []byte(token+"\n"), 0o600))
		var members []*member
		addresses := []string{kafkatest.FreeAddress(t), kafkatest.FreeAddress(t)}
		for _, address := range addresses {
			// Long enough to see the killed member before its session ends, on a busy machine.
			m := s.beginAt(address, "ops.token_file="+file, "ops.peers="+strings.Join(addresses, ","), "kafka.session_timeout=20s")
			defer m.end()
			members = append(members, m)
		}
		for _, m := range members {
			m.ready()
		}
		s.p.events(400)
		s.complete(nil)

		await := func(what string, m *member, holds func(g ops.GroupStatus, i ops.GroupIntegration) bool) (g ops.GroupStatus) {
			t.Helper()
			last := ""
			eventually(t, patience, what, func() bool {
				m.alive()
				answer, ok := m.group(token)
				if g = answer; !ok {
					return false
				}
				text, _ := json.Marshal(g)
				last = string(text)
				return holds(g, g.Integrations[0])
			}, func() string { return last })
			return g
		}
		show := func(m *member) (text string, code int) {
			p, code := run(t, s.e, command{args: []string{"status", "--address", m.address, "--set", "ops.token_file=" + file, "--scope", "group", "--integration", "default"}})
			return p.stdout.String(), code
		}
		for _, m := range members {
			await("the answer of "+m.address+" for both", m, func(g ops.GroupStatus, i ops.GroupIntegration) bool {
				owners := map[string]int{}
				var committed int64
				for _, p := range i.Partitions {
					owners[p.Peer]++
					committed += p.Committed
				}
				return g.Ready && i.State == "Stable" && i.Answering == 2 && i.Delivering == 2 && owners[addresses[0]] == 2 && owners[addresses[1]] == 2 &&
					committed == 400 && i.Lag == 0 && i.Totals.RowsDelivered == 400
			})
			if text, code := show(m); code != 0 || !strings.Contains(text, addresses[0]) || !strings.Contains(text, addresses[1]) || !strings.Contains(text, s.topic+"/3") {
				t.Errorf("bridge status --scope group: got exit code %d and\n%s\nwant 0, both processes and the partitions", code, text)
			}
		}

		lost := "" // the id of the member to kill
		for _, m := range await("the members", members[0], func(_ ops.GroupStatus, i ops.GroupIntegration) bool { return i.Answering == 2 }).Integrations[0].Members {
			if m.Peer == addresses[1] {
				lost = m.MemberID
			}
		}
		began := time.Now()
		members[1].end() // by SIGKILL
		g := await("the killed member named", members[0], func(_ ops.GroupStatus, i ops.GroupIntegration) bool { return i.Answering == 1 && len(i.Members) == 2 })
		t.Logf("named %v after the kill", time.Since(began).Round(time.Millisecond))
		var named bool
		for _, p := range g.Problems {
			named = named || p.Code == "member_not_answering" && strings.Contains(p.Text, lost)
		}
		if !named || g.Ready {
			t.Errorf("got ready %v, problems %+v, want member %s among them", g.Ready, g.Problems, lost)
		}
		if text, code := show(members[0]); code != 1 || !strings.Contains(text, addresses[1]) {
			t.Errorf("bridge status --scope group: got exit code %d and\n%s\nwant 1 and the address of the killed process", code, text)
		}
		await("its partitions with the other, once its session has ended", members[0], func(_ ops.GroupStatus, i ops.GroupIntegration) bool {
			for _, p := range i.Partitions {
				if p.Peer != addresses[0] {
					return false
				}
			}
			return i.Answering == 1 && len(i.Members) == 1 && i.Delivering == 1
		})
		t.Logf("gone %v after the kill", time.Since(began).Round(time.Second))
	})
}
