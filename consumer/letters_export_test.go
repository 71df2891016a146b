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
	parseRedriven(list, func(at landedRun, events []int) bool { out = appendRedriven(out, at, events); return true })
	return string(out), func(offset int64) bool { ok, _ := s.has(offset); return ok }
}

// DeadLetter makes the letter of a record that is one event, as a partition does.
func DeadLetter(rec *kgo.Record, m Mapper) *kgo.Record {
	var b Batch
	b.Add(rec, m)
	c := &Cluster{cfg: Config{Version: "1.2.3", Group: "g"}}
	return c.deadLetters(&b, time.Unix(1_800_000_000, 0))[0]
}
