package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
)

// What Kafka removed while no member was there is found by an operator in every
// place where he may look.
func TestLossIsReported(t *testing.T) {
	eachStage(t, setting{}, func(t *testing.T, s *stage) {
		s.p.events(50)
		ctx, cancel := within()
		defer cancel()
		passed, removed := kadm.Offsets{}, kadm.Offsets{}
		passed.AddOffset(s.topic, 0, 5, -1)
		removed.AddOffset(s.topic, 0, 30, -1)
		if _, err := s.adm.CommitOffsets(ctx, s.group, passed); err != nil {
			t.Fatal(err)
		}
		if _, err := s.adm.DeleteRecords(ctx, removed); err != nil {
			t.Fatal(err)
		}
		m := s.beginReady()
		s.rows(m, 20)
		s.commits()
		if got := s.ws.table().Count(); got != 20 {
			t.Errorf("got %d rows, want the 20 that were left", got)
		}
		status := m.integration()
		for where, l := range map[string]int64{"the process": status.Ledger.Lost, "the partition": status.Partitions[0].Ledger.Lost} {
			if l != 25 {
				t.Errorf("/status: got %d lost of %s, want 25", l, where)
			}
		}
		if got := status.Partitions[0].Lag; got != 0 {
			t.Errorf("got a lag of %d, want 0", got)
		}
		m.metric(fmt.Sprintf(`bridge_lost_offsets_total{integration="default",partition="0",topic="%s"} 25`, s.topic))
		m.metric(fmt.Sprintf(`bridge_skipped_offsets_total{integration="default",partition="0",topic="%s"} 0`, s.topic))
		p, _ := run(t, s.e, command{args: []string{"status", "--address", m.address}})
		if !strings.Contains(p.stdout.String(), "passed 45 = records 20 + lost 25 + skipped 0; LOST") {
			t.Errorf("bridge status does not report the loss:\n%s", p.stdout.String())
		}
		m.terminate(s.drain + slack)
		if n := m.logged("kafka removed events before they were delivered"); n != 1 {
			t.Errorf("got %d lines about one loss, want one", n)
		}
		for _, field := range []string{`"first_offset":5,"last_offset":29,"offsets":25`, `"lost":25,`} {
			if !strings.Contains(m.stderr.String(), field) {
				t.Errorf("the log does not hold %s", field)
			}
		}
	})
}
