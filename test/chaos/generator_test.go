package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/internal/oracle"
)

func TestEventsFollowFromSeedAndNumber(t *testing.T) {
	g := generator{7, topic}
	kinds := map[int]int{}
	for n := range uint32(50_000) {
		kinds[g.kind(n)]++
		if n%500 != 0 && g.kind(n) == fine {
			continue
		}
		a, b := g.record(n), g.record(n)
		if !bytes.Equal(a.Key, b.Key) || !bytes.Equal(a.Value, b.Value) {
			t.Fatalf("event %d is not the same twice", n)
		}
		if g.kind(n) == tombstone != (a.Value == nil) {
			t.Fatalf("event %d of kind %d has value %q", n, g.kind(n), a.Value)
		}
		if got, ok := g.number(g.id(n)); !ok || got != n {
			t.Fatalf("the id of event %d is read as %d", n, got)
		}
	}
	for kind, least := range map[int]int{fine: 45_000, unfit: 5, malformed: 100, tombstone: 50} {
		if kinds[kind] < least {
			t.Errorf("%d of 50000 events are of kind %d, want %d at least", kinds[kind], kind, least)
		}
	}
	if _, ok := (generator{8, topic}).number(g.id(1)); ok {
		t.Error("an id of another seed is taken for one of this")
	}
}

// tableRow is what the bridge should make of an event.
func tableRow(g generator, number uint32, partition int32, offset int64, member string) map[string]any {
	columns := map[string]any{"source_topic": topic, "source_partition": partition, "source_offset": offset, "written_by": member, "edition": 1}
	for k, v := range g.fields(number) {
		columns[k] = v
	}
	columns["event_timestamp"] = json.Number(g.fields(number)["event_timestamp"])
	return columns
}

func TestRowsAreComparedWithTheirEvents(t *testing.T) {
	g := generator{7, topic}
	for n := range uint32(100) {
		columns := tableRow(g, n, 3, 44, "m1.2")
		read := func() oracle.DeliveredRow {
			text, err := json.Marshal(columns)
			if err != nil {
				t.Fatal(err)
			}
			r, err := g.read(text)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		if r := read(); r.Difference != "" || r.Number != n || r.Partition != 3 || r.Offset != 44 || r.Process != "m1.2" {
			t.Fatalf("event %d: got %+v of its row", n, r)
		}
		for column, was := range tableRow(g, n, 3, 44, "m1.2") {
			if column == "message_id" || strings.HasPrefix(column, "source_p") || strings.HasPrefix(column, "source_o") || column == "source_topic" || column == "written_by" || column == "edition" {
				continue
			}
			columns[column] = fmt.Sprint(was) + "x"
			if r := read(); r.Difference == "" {
				t.Errorf("event %d: column %s was altered, and nothing is wrong", n, column)
			}
			delete(columns, column)
			if r := read(); r.Difference == "" {
				t.Errorf("event %d: column %s is missing, and nothing is wrong", n, column)
			}
			columns[column] = was
		}
		columns["extra"] = 1
		if r := read(); r.Difference == "" {
			t.Errorf("event %d: a column too many, and nothing is wrong", n)
		}
	}
	for _, text := range []string{`{}`, `[]`, `{"message_id":"m-1","source_partition":1,"source_offset":2}`, `{"message_id":"` + g.id(1) + `"}`} {
		if r, err := g.read([]byte(text)); err == nil {
			t.Errorf("%s: got %+v, want no event", text, r)
		}
	}
}

func TestNumbersNameWhereAnEventWasProduced(t *testing.T) {
	g := generator{7, topic}
	for _, tc := range []struct {
		number    uint32
		topic     string
		partition int32
		ledger    int32 // -1: the event is not from there
	}{
		{5, topic, 3, 3},
		{5, recreated, 1, -1},
		{recreatedNumbers, recreated, 1, recreatedFrom + 1},
		{recreatedNumbers + 7, recreated, 0, recreatedFrom},
		{recreatedNumbers + 2<<incarnationShift + 7, recreated, 1, recreatedFrom + 21},
		{recreatedNumbers, topic, 0, -1},
		{transactionNumbers, topic, 2, 2},
		{transactionNumbers + maxTransaction<<transactionShift, topic, 2, 2},
		{transactionNumbers, recreated, 0, -1},
		{5, "chaos.other", 0, -1},
	} {
		ledger, err := g.ledgerPartition(tc.topic, tc.partition, tc.number)
		if (err == nil) != (tc.ledger >= 0) || err == nil && ledger != tc.ledger {
			t.Errorf("event %d of %s/%d: got partition %d (%v), want %d", tc.number, tc.topic, tc.partition, ledger, err, tc.ledger)
		}
		text, err := json.Marshal(func() map[string]any {
			columns := tableRow(g, tc.number, tc.partition, 1, "m1.2")
			columns["source_topic"] = tc.topic
			return columns
		}())
		if err != nil {
			t.Fatal(err)
		}
		if r, err := g.read(text); (err == nil) != (tc.ledger >= 0) || err == nil && (r.Partition != tc.ledger || r.Difference != "") {
			t.Errorf("row of event %d of %s/%d: got %+v (%v), want partition %d", tc.number, tc.topic, tc.partition, r, err, tc.ledger)
		}
	}
	for _, number := range []uint32{recreatedNumbers, transactionNumbers, transactionNumbers + maxTransaction<<transactionShift} {
		if got, ok := g.number(g.id(number)); !ok || got != number || g.kind(number) != fine {
			t.Errorf("event %d: got number %d of kind %d", number, got, g.kind(number))
		}
	}
	if id, ok := transactionOf(transactionNumbers + 9<<transactionShift + 3); !ok || id != 9 {
		t.Errorf("got transaction %d, want 9", id)
	}
}

func TestDeadLettersAreComparedWithTheirEvents(t *testing.T) {
	g := generator{7, topic}
	n := uint32(0)
	for g.kind(n) != malformed {
		n++
	}
	_, code := g.malformed(n)
	deadLetter := func() *kgo.Record {
		r := g.record(n)
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: "bridge-error-code", Value: []byte(code)})
		return r
	}
	if got := g.difference(n, deadLetter(), code); got != "" {
		t.Errorf("got %q of a faithful dead letter", got)
	}
	for name, alter := range map[string]func(*kgo.Record) string{
		"key":     func(r *kgo.Record) string { r.Key = nil; return code },
		"value":   func(r *kgo.Record) string { r.Value = append(r.Value, ' '); return code },
		"header":  func(r *kgo.Record) string { r.Headers[1].Value = []byte("x"); return code },
		"headers": func(r *kgo.Record) string { r.Headers = r.Headers[:1]; return code },
		"code":    func(*kgo.Record) string { return "other" },
	} {
		r := deadLetter()
		if g.difference(n, r, alter(r)) == "" {
			t.Errorf("the %s was altered, and nothing differs", name)
		}
	}
}

func newTestRun() *run {
	v := oracle.NewViolations()
	r := &run{v: v, rig: &rig{secrets: &secrets{}}, latest: map[int32]uint32{}, recreate: &recreation{next: []uint32{recreatedNumbers}}}
	r.source = newSource(mainIntegration, generator{1, topic}, oracle.Config{Transaction: transactionOf}, v)
	r.others = []*source{newSource("n1", generator{2, otherTopic("n1")}, oracle.Config{}, v)}
	return r
}

func TestLogsAreRead(t *testing.T) {
	line := func(msg, fields string) string { return `{"msg":"` + msg + `",` + fields + "}" }
	whole := `"topic":"chaos.events","partition":2,"first_offset":5,"last_offset":9`
	for _, tc := range []struct {
		name  string
		lines []string
		rule  string // empty: nothing is wrong
		lost  int64
	}{
		{"an account that balances", []string{line("stopped", `"events":{"read":2,"delivered":2}`)}, "", 0},
		{"an account that does not", []string{line("stopped", `"events":{"read":2,"delivered":1}`)}, oracle.RuleAccounting, 0},
		{"no account", []string{line("stopped", `"a":1`)}, oracle.RuleAccounting, 0},
		{"an event in flight", []string{line("stopped", `"events":{"read":1,"in_flight":1}`)}, oracle.RuleAccounting, 0},
		{"a loss, and its count at the end", []string{line(lossMessage, whole), line("stopped", `"events":{"offsets":5,"lost":5}`)}, "", 5},
		{"another line that names offsets", []string{line("other", whole), line("stopped", `"events":{}`)}, "", 0},
		{"a loss without its range", []string{line(lossMessage, `"topic":"chaos.events","partition":2`)}, oracle.RuleLossReport, 0},
		{"a loss that is not counted", []string{line(lossMessage, whole), line("stopped", `"events":{}`)}, oracle.RuleLossReport, 5},
		{"a count without a loss", []string{line("stopped", `"events":{"offsets":1,"lost":1}`)}, oracle.RuleLossReport, 0},
		{"a loss of one integration, and the end of another", []string{line(lossMessage, whole), line("stopped", `"integration":"n1","events":{}`)}, "", 5},
		{"a count of another integration without a loss", []string{line("stopped", `"integration":"n1","events":{"offsets":1,"lost":1}`)}, oracle.RuleLossReport, 0},
		{"a token", []string{line("other", `"header":"Bearer abc"`)}, oracle.RuleSecret, 0},
	} {
		r := newTestRun()
		for _, text := range tc.lines {
			r.onLine(&process{name: "m"}, []byte(text))
		}
		got := r.v.List()
		if (tc.rule == "") != (len(got) == 0) || len(got) > 0 && got[0].Rule != tc.rule {
			t.Errorf("%s: got %+v, want rule %q", tc.name, got, tc.rule)
		}
		if lost := r.ledger.LoggedLost("m"); lost != tc.lost {
			t.Errorf("%s: got %d lost offsets, want %d", tc.name, lost, tc.lost)
		}
	}
}

// A partition that a member writes without having been assigned it is a duplicate. Each
// integration has assignments of its own.
func TestAssignmentsAreReadFromTheLog(t *testing.T) {
	for _, tc := range []struct {
		msg, topic, integration string
		rules                   int
	}{
		{"partitions assigned", topic, mainIntegration, 0},
		{"partitions revoked", topic, mainIntegration, 1},
		{"partitions assigned", otherTopic("n1"), "n1", 0},
		{"partitions assigned", topic, "n1", 1},
	} {
		r := newTestRun()
		r.onLine(&process{name: "m"}, []byte(`{"level":"info","msg":"`+tc.msg+`","partitions":{"`+tc.topic+`":[4,1]}}`))
		src := r.sourceOf(tc.integration)
		number := uint32(0)
		for src.gen.kind(number) != fine {
			number++
		}
		event := oracle.Event{Number: number, Partition: 4}
		src.ledger.Acknowledged(event)
		src.ledger.Written([]oracle.DeliveredRow{{Event: event, Process: "m", Edition: 1}}, time.Now())
		src.ledger.Close(func(string, int32) bool { return false })
		got := r.v.List()
		if len(got) != tc.rules {
			t.Errorf("%s, %s: got %+v, want %d broken rules", tc.msg, tc.integration, got, tc.rules)
		}
		if len(got) > 0 && strings.HasPrefix(got[0].Examples[0], "integration n1: ") != (tc.integration == "n1") {
			t.Errorf("%s, %s: got %q, want the integration named if it is not the main one", tc.msg, tc.integration, got[0].Examples[0])
		}
	}
}

func TestSecretsAreFound(t *testing.T) {
	file := t.TempDir() + "/secret"
	s := &secrets{file: file, more: []string{file + "-n1"}}
	secret := s.fresh()
	if err := s.write(secret); err != nil {
		t.Fatal(err)
	}
	if !s.in([]byte("the secret is "+secret+"!")) || !s.in([]byte("Authorization: Bearer abc")) || s.in([]byte("missing bearer token")) {
		t.Error("secrets are not distinguished from other text")
	}
	for _, tc := range []struct {
		what  string
		after func(string) error
		right bool
	}{{"written", nil, true}, {"spoilt", s.spoil, false}, {"restored", s.restore, true}} {
		if tc.after != nil {
			if err := tc.after(s.more[0]); err != nil {
				t.Fatal(err)
			}
		}
		if text, err := os.ReadFile(s.more[0]); err != nil || (string(text) == secret) != tc.right {
			t.Errorf("%s: got %q (%v), want the secret: %v", tc.what, text, err, tc.right)
		}
	}
}

func TestLinesAreSplit(t *testing.T) {
	var got []string
	l := &lineWriter{each: func(line []byte) { got = append(got, string(line)) }}
	for _, part := range []string{"a", "b\nc\n", "d", "\n"} {
		if _, err := l.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint([]string{"ab\n", "c\n", "d\n"}) {
		t.Errorf("got lines %q", got)
	}
}

func TestFreshEventsAreAwaitedOnEveryPartition(t *testing.T) {
	r := newTestRun()
	again := recreatedNumbers + 1<<incarnationShift
	partition, err := r.gen.ledgerPartition(recreated, 0, again)
	if err != nil {
		t.Fatal(err)
	}
	r.ledger.Acknowledged(oracle.Event{Number: 99, Offset: 0})
	r.latest[0] = 99
	if !r.arrived(98, again) || r.arrived(99, again) {
		t.Error("the newest event of the only partition is 99, and that is not what counts")
	}
	r.ledger.Acknowledged(oracle.Event{Number: again, Partition: partition})
	if r.arrived(98, again) {
		t.Error("no event of the recreated topic has arrived, and that is not awaited")
	}
	r.latest[partition] = again + 1
	if !r.arrived(98, again) {
		t.Error("a newer event of the recreated topic has arrived, and is awaited")
	}
	if !r.arrived(98, again+1<<incarnationShift) {
		t.Error("an incarnation that is gone is awaited")
	}
}
