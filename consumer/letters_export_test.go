package consumer

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Marked reads a marker's list as it is read from a marker at the given offset
// of <in>, and returns what was understood, written again; "" if it is not
// believed. whole tells whether a letter is settled by it.
func Marked(list string, at int64) (again string, whole func(offset int64) bool) {
	var s settled
	rec := &kgo.Record{Offset: at, Headers: []kgo.RecordHeader{{Key: HeaderRedriven, Value: []byte(list)}, {Key: HeaderRedrivenIn, Value: []byte("c/t/0")}}}
	if !isMarker(rec) || !s.take(rec, "c/t/0") {
		return "", nil
	}
	var out []byte
	parseRedriven(list, func(at landedRun, events Events) bool { out = appendRedriven(out, at, events); return true })
	return string(out), func(offset int64) bool { ok, _ := s.has(offset); return ok }
}

// DeadLetter makes the letter of a record that is one event, as a partition does.
func MakeDeadLetter(rec *kgo.Record, m Mapper) *kgo.Record {
	var b Batch
	b.Add(rec, m)
	c := &Cluster{cfg: Config{Version: "1.2.3", Kafka: Kafka{Group: "g"}}}
	return c.deadLetters(&b, time.Unix(1_800_000_000, 0))[0]
}

// MakeDeadLetterOf makes the dead letter of a record by a configuration.
func MakeDeadLetterOf(cfg Config, rec *kgo.Record, m Mapper) *kgo.Record {
	var b Batch
	b.Add(rec, m)
	c := &Cluster{cfg: cfg}
	return c.deadLetters(&b, time.Unix(1_800_000_000, 0))[0]
}

// SetEntries changes how many bytes may be used to compare dead letters.
func (l *DeadLetterReader) SetEntries(most int) { l.entries.most = most }

// Parts cuts a dead letter into parts of so many bytes.
func Parts(letter *kgo.Record, size int) (parts []*kgo.Record) {
	whole := appendLetter(nil, letter)
	return PartsOf(letter, whole, size)
}

// PartsOf cuts bytes into parts as if they were a dead letter's.
func PartsOf(letter *kgo.Record, whole []byte, size int) (parts []*kgo.Record) {
	of := (len(whole) + size - 1) / size
	for n := range of {
		parts = append(parts, partOf(letter, whole[n*size:min((n+1)*size, len(whole))], n+1, of, partName(whole)))
	}
	return parts
}

// Assemble puts parts together and holds at most so many bytes.
func Assemble(t interface{ Errorf(string, ...any) }, most int, parts ...*kgo.Record) (letters []*DeadLetter) {
	a := &assembly{most: most}
	for _, part := range parts {
		if !isPart(part) {
			t.Errorf("got no part: %v", part.Headers)
		}
		letters = append(letters, a.take(part)...)
		held := 0
		for _, p := range a.open {
			held += p.bytes()
		}
		if held != a.held || held > most {
			t.Errorf("got %d bytes held and %d counted, want at most %d", held, a.held, most)
		}
	}
	return append(letters, a.rest()...)
}
