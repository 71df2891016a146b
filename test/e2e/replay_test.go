package e2e_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/kafkatest"
	"github.com/datafly/bridge/zerobus/emulator"
)

// An hour's events are spread evenly over it.
const perHour = 600

// began is when the first of the stamped events happened: long enough ago that
// no present event falls among them.
var began = time.Now().Add(-24 * time.Hour).UTC().Truncate(time.Hour)

func hour(n int) string { return began.Add(time.Duration(n) * time.Hour).Format(time.RFC3339) }

// stamped appends n hours of events with timestamps from began on.
func (p *producer) stamped(hours int) {
	p.t.Helper()
	var recs []*kgo.Record
	for i := range hours * perHour {
		partition := int32(i % len(p.next))
		recs = append(recs, &kgo.Record{Topic: p.topic, Partition: partition, Timestamp: began.Add(time.Duration(i) * time.Hour / perHour),
			Value: event(eventID(partition, p.next[partition]), p.pad)})
		p.next[partition]++
	}
	ctx, cancel := within()
	defer cancel()
	if err := p.cl.ProduceSync(ctx, recs...).FirstErr(); err != nil {
		p.t.Fatalf("producing %d events: %v", len(recs), err)
	}
}

// inHours reports whether a stamped event of this id happened in [from, until).
func inHours(t testing.TB, id string, partitions, from, until int) bool {
	t.Helper()
	partition, offset := parseID(t, id)
	i := int(offset)*partitions + int(partition)
	return i >= from*perHour && i < until*perHour
}

func TestReplayOfTheLastHour(t *testing.T) {
	eachStage(t, setting{partitions: 3}, func(t *testing.T, s *stage) {
		m := s.beginReady()
		s.p.stamped(3)
		if duplicates := s.complete(m); duplicates != 0 {
			t.Fatalf("got %d duplicates before the replay, want none", duplicates)
		}
		replay := func(args ...string) (*process, int) {
			t.Helper()
			return run(t, s.e, command{args: append([]string{"replay", "--config", s.config, "--to", hour(2)}, args...)})
		}

		p, code := replay("--execute")
		if code != 1 {
			t.Errorf("with a running member: got exit code %d, want 1", code)
		}
		wants(t, p.stdout.String(), "The group has 1 member;", "zerobus-bridge", "kubectl scale deployment/bridge --replicas=0", "systemctl stop bridge", "refused, nothing is changed")
		wants(t, p.stderr.String(), "refused: group "+s.group+" is in use (members: 1)", "docker compose stop bridge")
		s.commits()
		m.terminate(s.drain + time.Second + slack)

		p, code = replay()
		if code != 0 {
			t.Errorf("dry run: got exit code %d, want 0; stderr: %s", code, p.stderr.String())
		}
		wants(t, p.stdout.String(), "dry run, nothing is changed", fmt.Sprintf("Up to %d rows", perHour), "repeat this with --execute")
		s.commits()

		p, code = replay("--execute", "--reason", "blueprint fix", "--output", "json")
		var report struct {
			Executed bool   `json:"executed"`
			Reason   string `json:"reason"`
			Totals   struct {
				Again   int64 `json:"delivered_again"`
				Skipped int64 `json:"skipped"`
			} `json:"totals"`
			Partitions []struct {
				Committed *int64 `json:"committed"`
				Target    int64  `json:"target"`
			} `json:"partitions"`
		}
		if err := json.Unmarshal([]byte(p.stdout.String()), &report); err != nil || code != 0 {
			t.Fatalf("got exit code %d and %v in %s; stderr: %s", code, err, p.stdout.String(), p.stderr.String())
		}
		if !report.Executed || report.Reason != "blueprint fix" || report.Totals.Again != perHour || report.Totals.Skipped != 0 || len(report.Partitions) != 3 {
			t.Errorf("got %+v, want %d events again in 3 partitions", report, perHour)
		}
		if p.logged("replay: offsets committed") != 1 {
			t.Errorf("got no audit line in %s", p.stderr.String())
		}
		wants(t, p.stderr.String(), `"reason":"blueprint fix"`, `"group":"`+s.group+`"`, fmt.Sprintf(`%s/0:%d->%d`, s.topic, perHour, perHour*2/3), `"by":"`)
		if got := sum(committed(t, s.adm, s.group, s.topic)); got != 2*perHour {
			t.Fatalf("got %d events committed, want the %d before the hour", got, 2*perHour)
		}

		if duplicates := s.complete(s.beginReady()); duplicates != perHour {
			t.Errorf("got %d duplicates, want the %d of the hour", duplicates, perHour)
		}
		for id, n := range s.ws.ids() {
			want := 1
			if inHours(t, id, 3, 2, 3) {
				want = 2
			}
			if n != want {
				t.Errorf("event %s is in the table %d times, want %d", id, n, want)
			}
		}
	})
}

func TestReplaySkipsNothingUnlessAllowed(t *testing.T) {
	eachStage(t, setting{}, func(t *testing.T, s *stage) {
		s.p.stamped(1)
		latest := []string{"replay", "--config", s.config, "--to", "latest"}
		p, code := run(t, s.e, command{args: latest})
		if code != 0 {
			t.Errorf("dry run: got exit code %d, want 0; stderr: %s", code, p.stderr.String())
		}
		wants(t, p.stdout.String(), fmt.Sprintf("WARNING: %d events that were never delivered are SKIPPED", perHour), "--execute refuses this without --allow-skip")
		p, code = run(t, s.e, command{args: append(latest, "--execute")})
		if code != 1 {
			t.Errorf("without --allow-skip: got exit code %d, want 1", code)
		}
		wants(t, p.stderr.String(), fmt.Sprintf("refused: %d events were never delivered", perHour), "--allow-skip")
		if got := committed(t, s.adm, s.group, s.topic); len(got) != 0 {
			t.Errorf("got offsets %v after a refusal, want none", got)
		}
		p, code = run(t, s.e, command{args: append(latest, "--execute", "--allow-skip")})
		if code != 0 {
			t.Errorf("with --allow-skip: got exit code %d, want 0; stderr: %s", code, p.stderr.String())
		}
		s.commits()
	})
}

const shadow = "datafly.events.stream_shadow"

// addShadow makes a table like the one the bridge writes to.
func (s *stage) addShadow() *emulator.Table {
	s.t.Helper()
	if _, err := s.ws.CreateTable(strings.ReplaceAll(s.ws.table().DDL(), "stream", "stream_shadow")); err != nil {
		s.t.Fatal(err)
	}
	table := s.ws.Table(shadow)
	if table == nil {
		s.t.Fatalf("the workspace has %v, want %s among them", s.ws.Tables(), shadow)
	}
	return table
}

// bounded starts a run of the stamped events of some hours into the shadow table.
func (s *stage) bounded(from, until int, sets ...string) *member {
	s.t.Helper()
	address := kafkatest.FreeAddress(s.t)
	args := append(s.args("run", append(sets, "zerobus.table=stream_shadow")...), "--ops-address", address,
		"--group", s.group+"-shadow", "--from", hour(from), "--until", hour(until))
	return &member{process: start(s.t, s.e, command{args: args, plain: s.plain}), s: s, address: address}
}

// shadowHas wants exactly the events of some hours in the shadow table, and
// returns how many rows are there more than once.
func (s *stage) shadowHas(table *emulator.Table, from, until int) (duplicates int) {
	s.t.Helper()
	ids := map[string]int{}
	for _, row := range table.Rows(nil) {
		id, _ := row.Value("message_id")
		if ids[id]++; !inHours(s.t, id, len(s.p.next), from, until) {
			s.t.Errorf("event %s is in the shadow table and not of the window", id)
		}
	}
	if want := (until - from) * perHour; len(ids) != want {
		s.t.Errorf("got %d events in the shadow table, want %d", len(ids), want)
	}
	return table.Count() - len(ids)
}

func TestBoundedRunIntoAShadowTable(t *testing.T) {
	eachStage(t, setting{partitions: 3}, func(t *testing.T, s *stage) {
		table := s.addShadow()
		live := s.beginReady()
		s.p.stamped(3)
		b := s.bounded(1, 2)
		s.p.events(900) // the traffic continues
		if code := b.wait(patience); code != 0 {
			t.Fatalf("got exit code %d, want 0; stderr:\n%s", code, tail(b.stderr.String()))
		}
		if duplicates := s.shadowHas(table, 1, 2); duplicates != 0 {
			t.Errorf("got %d duplicates in the shadow table, want none", duplicates)
		}
		wants(t, b.stderr.String(), `"msg":"bounded run: over","integration":"default","complete":true,"partitions":3,"reached":3,"events_read":600,"rows":600,"dead_letters":0`)
		if duplicates := s.complete(live); duplicates != 0 {
			t.Errorf("got %d duplicates in the live table, want none", duplicates)
		}
		if got := live.snapshot().Totals.Rebalances; got != 1 {
			t.Errorf("got %d rebalances of the live group, want the first alone", got)
		}
		// again, there is nothing to do.
		again := s.bounded(1, 2)
		if code := again.wait(patience); code != 0 || table.Count() != perHour {
			t.Errorf("got exit code %d and %d rows, want 0 and the %d that were there", code, table.Count(), perHour)
		}
		wants(t, again.stderr.String(), "--from is not used for partitions in which the group has committed")
	})
}

func TestBoundedRunGoesOnAfterItsEnd(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		signal syscall.Signal
		code   int // of a run that is not complete
	}{{syscall.SIGKILL, -1}, {syscall.SIGTERM, 1}} {
		t.Run(tc.signal.String(), func(t *testing.T) {
			eachStage(t, setting{partitions: 3, workspace: emulator.Config{Latency: emulator.Latency{P50: 250 * time.Millisecond}}}, func(t *testing.T, s *stage) {
				table := s.addShadow()
				s.p.stamped(4)
				const rows = 20 // of one write
				first := s.bounded(1, 3, fmt.Sprintf("delivery.max_rows=%d", rows), "kafka.session_timeout=6s")
				eventually(t, patience, "a part of the window in the table", func() bool {
					first.alive()
					return table.Count() >= 200
				})
				first.signal(tc.signal)
				if code := first.wait(patience); code != tc.code {
					t.Fatalf("cut by %v: got exit code %d, want %d; stderr:\n%s", tc.signal, code, tc.code, tail(first.stderr.String()))
				}
				cut := table.Count()
				if cut >= 2*perHour {
					t.Fatalf("the run was through when it was cut, with %d rows", cut)
				}
				if tc.code == 1 {
					wants(t, first.stderr.String(), "stopped before every partition had reached its end; start it again with the same --group")
				}
				second := s.bounded(1, 3)
				if code := second.wait(patience); code != 0 {
					t.Fatalf("got exit code %d, want 0; stderr:\n%s", code, tail(second.stderr.String()))
				}
				duplicates := s.shadowHas(table, 1, 3)
				t.Logf("cut with %d rows; %d duplicates", cut, duplicates)
				if tc.code == 1 && duplicates != 0 {
					t.Errorf("got %d duplicates after a stop in good order, want none", duplicates)
				}
			})
		})
	}
}
