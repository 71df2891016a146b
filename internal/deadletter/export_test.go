package deadletter

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/datafly/bridge/consumer"
)

// Marked reads a marker's list as from a marker at the given offset of
// <in>, and returns the valid list again; "" if it is ignored. whole reports
// whether it resolves a dead letter.
func Marked(list string, at int64) (again string, whole func(offset int64) bool) {
	var s redriven
	rec := &kgo.Record{Offset: at, Headers: []kgo.RecordHeader{{Key: HeaderRedriven, Value: []byte(list)}, {Key: HeaderRedrivenIn, Value: []byte("c/t/0")}}}
	if !isMarker(rec) || !s.add(rec, "c/t/0") {
		return "", nil
	}
	var out []byte
	parseRedriven(list, func(at offsetRun, events consumer.Events) bool { out = appendRedriven(out, at, events); return true })
	return string(out), func(offset int64) bool { ok, _ := s.has(offset); return ok }
}

// SetEntries changes how many bytes may be used to compare dead letters.
func (l *Reader) SetEntries(most int) { l.entries.most = most }

// Assemble puts parts together and holds at most so many bytes.
func Assemble(t interface{ Errorf(string, ...any) }, most int, parts ...*kgo.Record) (records []*Record) {
	a := &assembly{most: most}
	for _, part := range parts {
		if !isPart(part) {
			t.Errorf("got no part: %v", part.Headers)
		}
		records = append(records, a.add(part)...)
		held := 0
		for _, p := range a.open {
			held += p.bytes()
		}
		if held != a.held || held > most {
			t.Errorf("got %d bytes held and %d counted, want at most %d", held, a.held, most)
		}
	}
	return append(records, a.rest()...)
}
