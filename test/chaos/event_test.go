package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func TestEventsFollowFromSeedAndNumber(t *testing.T) {
	m := maker{7}
	kinds := map[int]int{}
	for n := range uint32(50_000) {
		kinds[m.kind(n)]++
		if n%500 != 0 && m.kind(n) == fine {
			continue
		}
		a, b := m.record(n), m.record(n)
		if !bytes.Equal(a.Key, b.Key) || !bytes.Equal(a.Value, b.Value) {
			t.Fatalf("event %d is not the same twice", n)
		}
		if m.kind(n) == tombstone != (a.Value == nil) {
			t.Fatalf("event %d of kind %d has value %q", n, m.kind(n), a.Value)
		}
		if got, ok := m.number(m.id(n)); !ok || got != n {
			t.Fatalf("the id of event %d is read as %d", n, got)
		}
	}
	for kind, least := range map[int]int{fine: 45_000, unfit: 5, malformed: 100, tombstone: 50} {
		if kinds[kind] < least {
			t.Errorf("%d of 50000 events are of kind %d, want %d at least", kinds[kind], kind, least)
		}
	}
	if _, ok := (maker{8}).number(m.id(1)); ok {
		t.Error("an id of another seed is taken for one of this")
	}
}

// tableRow is what the bridge should make of an event.
func tableRow(m maker, number uint32, partition int32, offset int64, member string) map[string]any {
	columns := map[string]any{"source_topic": topic, "source_partition": partition, "source_offset": offset, "written_by": member, "edition": 1}
	for k, v := range m.fields(number) {
		columns[k] = v
	}
	columns["event_timestamp"] = json.Number(m.fields(number)["event_timestamp"])
	return columns
}

func TestRowsAreHeldAgainstTheirEvents(t *testing.T) {
	m := maker{7}
	for n := range uint32(100) {
		columns := tableRow(m, n, 3, 44, "m1.2")
		read := func() row {
			text, err := json.Marshal(columns)
			if err != nil {
				t.Fatal(err)
			}
			r, err := m.read(text)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		if r := read(); r.wrong != "" || r.number != n || r.partition != 3 || r.offset != 44 || r.member != "m1.2" {
			t.Fatalf("event %d: got %+v of its row", n, r)
		}
		for column, was := range tableRow(m, n, 3, 44, "m1.2") {
			if column == "message_id" || strings.HasPrefix(column, "source_p") || strings.HasPrefix(column, "source_o") || column == "source_topic" || column == "written_by" || column == "edition" {
				continue
			}
			columns[column] = fmt.Sprint(was) + "x"
			if r := read(); r.wrong == "" {
				t.Errorf("event %d: column %s was altered, and nothing is wrong", n, column)
			}
			delete(columns, column)
			if r := read(); r.wrong == "" {
				t.Errorf("event %d: column %s is missing, and nothing is wrong", n, column)
			}
			columns[column] = was
		}
		columns["extra"] = 1
		if r := read(); r.wrong == "" {
			t.Errorf("event %d: a column too many, and nothing is wrong", n)
		}
	}
	for _, text := range []string{`{}`, `[]`, `{"message_id":"m-1","source_partition":1,"source_offset":2}`, `{"message_id":"` + m.id(1) + `"}`} {
		if r, err := m.read([]byte(text)); err == nil {
			t.Errorf("%s: got %+v, want no event", text, r)
		}
	}
}

func TestNumbersSayWhereAnEventWasProduced(t *testing.T) {
	m := maker{7}
	for _, tc := range []struct {
		number    uint32
		topic     string
		partition int32
		book      int32 // -1: the event is not from there
	}{
		{5, topic, 3, 3},
		{5, recreated, 1, -1},
		{recreatedNumbers, recreated, 1, recreatedBooks + 1},
		{recreatedNumbers + 7, recreated, 0, recreatedBooks},
		{recreatedNumbers + 2<<incarnationShift + 7, recreated, 1, recreatedBooks + 21},
		{recreatedNumbers, topic, 0, -1},
		{transactionNumbers, topic, 2, 2},
		{transactionNumbers + maxTransaction<<transactionShift, topic, 2, 2},
		{transactionNumbers, recreated, 0, -1},
		{5, "chaos.other", 0, -1},
	} {
		book, err := bookOf(tc.topic, tc.partition, tc.number)
		if (err == nil) != (tc.book >= 0) || err == nil && book != tc.book {
			t.Errorf("event %d of %s/%d: got partition %d (%v), want %d", tc.number, tc.topic, tc.partition, book, err, tc.book)
		}
		text, err := json.Marshal(func() map[string]any {
			columns := tableRow(m, tc.number, tc.partition, 1, "m1.2")
			columns["source_topic"] = tc.topic
			return columns
		}())
		if err != nil {
			t.Fatal(err)
		}
		if r, err := m.read(text); (err == nil) != (tc.book >= 0) || err == nil && (r.partition != tc.book || r.wrong != "") {
			t.Errorf("row of event %d of %s/%d: got %+v (%v), want partition %d", tc.number, tc.topic, tc.partition, r, err, tc.book)
		}
	}
	for _, number := range []uint32{recreatedNumbers, transactionNumbers, transactionNumbers + maxTransaction<<transactionShift} {
		if got, ok := m.number(m.id(number)); !ok || got != number || m.kind(number) != fine {
			t.Errorf("event %d: got number %d of kind %d", number, got, m.kind(number))
		}
	}
	if id, ok := transactionOf(transactionNumbers + 9<<transactionShift + 3); !ok || id != 9 {
		t.Errorf("got transaction %d, want 9", id)
	}
}

func TestDeadLettersAreHeldAgainstTheirEvents(t *testing.T) {
	m := maker{7}
	n := uint32(0)
	for m.kind(n) != malformed {
		n++
	}
	_, code := m.malformed(n)
	letter := func() *kgo.Record {
		r := m.record(n)
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: "bridge-error-code", Value: []byte(code)})
		return r
	}
	if got := m.differs(n, letter(), code); got != "" {
		t.Errorf("got %q of a faithful dead letter", got)
	}
	for name, alter := range map[string]func(*kgo.Record) string{
		"key":     func(r *kgo.Record) string { r.Key = nil; return code },
		"value":   func(r *kgo.Record) string { r.Value = append(r.Value, ' '); return code },
		"header":  func(r *kgo.Record) string { r.Headers[1].Value = []byte("x"); return code },
		"headers": func(r *kgo.Record) string { r.Headers = r.Headers[:1]; return code },
		"code":    func(*kgo.Record) string { return "other" },
	} {
		r := letter()
		if m.differs(n, r, alter(r)) == "" {
			t.Errorf("the %s was altered, and nothing differs", name)
		}
	}
}

func TestLogsAreRead(t *testing.T) {
	if got := assignedTo([]byte(`{"level":"info","msg":"partitions assigned","partitions":{"chaos.events":[4,1]}}`)); len(got) != 2 || got[0] != 4 {
		t.Errorf("got %v, want partitions 4 and 1", got)
	}
	if got := assignedTo([]byte(`{"msg":"partitions revoked","partitions":{"chaos.events":[4,1]}}`)); got != nil {
		t.Errorf("got %v of a revoke", got)
	}
	s := newSecrets(t.TempDir() + "/secret")
	secret := s.fresh()
	if err := s.write(secret); err != nil {
		t.Fatal(err)
	}
	if !s.in([]byte("the secret is "+secret+"!")) || !s.in([]byte("Authorization: Bearer abc")) || s.in([]byte("missing bearer token")) {
		t.Error("secrets are not told from other text")
	}
	var got []string
	l := &lines{each: func(line []byte) { got = append(got, string(line)) }}
	for _, part := range []string{"a", "b\nc\n", "d", "\n"} {
		if _, err := l.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint([]string{"ab\n", "c\n", "d\n"}) {
		t.Errorf("got lines %q", got)
	}
	if hold(t.Context(), time.Nanosecond) != true {
		t.Error("a wait without an end of its context was cut short")
	}
}
