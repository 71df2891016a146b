package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Records that hold very many events block nothing. Each record with more than
// mapping.max_events_per_record is one dead letter, even if its topic takes no
// record of that size. After a replay it is still one entry of the list. A
// redrive with a larger bound writes all of its events once.
func TestRecordsOfManyEvents(t *testing.T) {
	const many = 12_000
	eachStage(t, setting{}, func(t *testing.T, s *stage) {
		s.broker.CreateTopic(t, s.topic+"-dlq", 1, map[string]string{"max.message.bytes": "50000"})
		dice := rand.New(rand.NewPCG(1, 2)) // digits in no order, so that they do not compress to nothing
		var numbers, batch strings.Builder
		for range 400_000 {
			fmt.Fprintf(&numbers, "%d,", dice.IntN(10))
		}
		for i := range many {
			fmt.Fprintf(&batch, `{"event":"e","message_id":"b-%d"},`, i)
		}
		texts := []string{
			string(event("first", 0)),
			"[" + strings.TrimSuffix(numbers.String(), ",") + "]",
			`{"batch":[` + strings.TrimSuffix(batch.String(), ",") + "]}",
			`[` + string(event("one", 0)) + `,7,` + string(event("two", 0)) + `]`,
			string(event("last", 0)),
		}
		var records []*kgo.Record
		for _, text := range texts {
			records = append(records, &kgo.Record{Topic: s.topic, Value: []byte(text)})
		}
		s.p.next[0] += int64(len(records))
		ctx, cancel := within()
		defer cancel()
		must(t, s.p.cl.ProduceSync(ctx, records...).FirstErr())

		m := s.beginReady()
		s.rows(m, 4)
		s.commits()
		m.terminate(s.drain + time.Second + slack)

		// What lies there, after one delivery and after two.
		lies := func(deliveries int) {
			t.Helper()
			var list struct {
				Matched     int
				Older       int `json:"older_copies"`
				DeadLetters []struct {
					Name                         string `json:"dead_letter"`
					Source, Code, Reason, Events string
					Attempts, Copies, Parts      int
				} `json:"dead_letters"`
			}
			s.dlq(0, &list, "list")
			codes := map[string]string{}
			for _, l := range list.DeadLetters {
				codes[l.Source] = l.Code + " " + l.Events
				if l.Copies != deliveries || l.Attempts != deliveries || (l.Parts > 0) != (l.Code == "too_many_events") {
					t.Errorf("after %d deliveries: got %+v, want so many copies and attempts, and parts where there are too many events", deliveries, l)
				}
			}
			want := map[string]string{s.topic + "/0/1": "too_many_events 0", s.topic + "/0/2": "too_many_events 0", s.topic + "/0/3": "not_object 1"}
			if list.Matched != 3 || fmt.Sprint(codes) != fmt.Sprint(want) || list.Older != 3*(deliveries-1) {
				t.Errorf("after %d deliveries: got %d entries %v and %d older copies, want %v", deliveries, list.Matched, codes, list.Older, want)
			}
			if len(list.DeadLetters) == 3 && deliveries == 1 {
				for _, l := range list.DeadLetters {
					if l.Source == s.topic+"/0/1" {
						wants(t, l.Reason, "400000 events", "mapping.max_events_per_record is 10000")
						wants(t, s.dlq(0, nil, "show", l.Name), "too_many_events", "parts ", "open", "event 0: reject")
					}
				}
			}
		}
		lies(1)
		if p, code := run(t, s.e, command{args: []string{"replay", "--config", s.config, "--to", "earliest", "--execute"}}); code != 0 {
			t.Fatalf("replay: got exit code %d; stderr:\n%s", code, tail(p.stderr.String()))
		}
		m = s.beginReady()
		s.rows(m, 8)
		s.commits()
		m.terminate(s.drain + time.Second + slack)
		lies(2)

		var r redriven
		s.dlq(1, &r, "redrive", "--set", fmt.Sprintf("mapping.max_events_per_record=%d", many), "--execute")
		if r.Matched != 3 || r.Delivered != 1 || r.Rows != many || r.Rejected != 2 {
			t.Errorf("redrive: got %+v, want the batch of %d events delivered and two still rejected", r, many)
		}
		if table := s.ws.table(); table.Count() != 8+many || table.Distinct("message_id") != 4+many {
			t.Errorf("got %d rows, %d different, want %d and %d", table.Count(), table.Distinct("message_id"), 8+many, 4+many)
		}
		s.dlq(1, &r, "redrive", "--set", fmt.Sprintf("mapping.max_events_per_record=%d", many), "--execute")
		if r.Matched != 2 || r.Rows != 0 || r.Resolved != 1 {
			t.Errorf("second redrive: got %+v, want the batch resolved", r)
		}
	})
}
