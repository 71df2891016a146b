package consumer

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Headers of a marker. Kafka cannot remove from the middle of a log, so a
// redrive that landed adds a record without a key and a value to the partition
// of the letters, with these headers. A letter of an event that has such
// headers itself has HeaderCode, too, and is no marker.
const (
	// HeaderRedriven lists offsets of the marker's own partition, rising:
	// "17,20-45,51:0+3-5" are the letter 17, those from 20 to 45, and of letter
	// 51 the events 0 and 3 to 5.
	HeaderRedriven   = "bridge-redriven"
	HeaderRedrivenIn = "bridge-redriven-in" // <cluster id>/<topic>/<partition>; in a copy of the topic the offsets mean something else
	HeaderRedrivenAt = "bridge-redriven-at" // RFC 3339, UTC, milliseconds
	HeaderRedrivenBy = "bridge-redriven-by" // who, for people
)

// maxMarker bounds the list of one marker, in bytes. Where the topic takes less,
// lists are halved down to leastMarker.
const maxMarker, leastMarker = 16 << 10, 128

// landedRun is a run of offsets, both included.
type landedRun struct{ first, last int64 }

// settled says which letters of a partition have landed. It takes 16 bytes for
// each run of them.
type settled struct {
	whole []landedRun      // rising and apart once sorted
	part  map[int64]Events // letters of which some events have landed
	dirty bool
}

// add notes what one item of a marker says; no events means all of them.
func (s *settled) add(at landedRun, events Events) {
	if len(events) == 0 {
		s.whole, s.dirty = append(s.whole, at), true
		return
	}
	if s.part == nil {
		s.part = make(map[int64]Events)
	}
	s.part[at.first] = s.part[at.first].And(events)
}

// sort joins runs that touch.
func (s *settled) sort() {
	if !s.dirty {
		return
	}
	s.dirty = false
	slices.SortFunc(s.whole, func(a, b landedRun) int { return cmp.Compare(a.first, b.first) })
	joined := s.whole[:0]
	for _, r := range s.whole {
		if n := len(joined); n > 0 && r.first <= joined[n-1].last+1 {
			joined[n-1].last = max(joined[n-1].last, r.last)
			continue
		}
		joined = append(joined, r)
	}
	s.whole = joined
}

// has tells whether the letter has landed, and which of its events have if not.
func (s *settled) has(offset int64) (bool, Events) {
	s.sort()
	_, found := slices.BinarySearchFunc(s.whole, offset, func(r landedRun, at int64) int {
		switch {
		case r.last < at:
			return -1
		case r.first > at:
			return 1
		}
		return 0
	})
	return found, s.part[offset]
}

// isMarker tells a marker from a letter.
func isMarker(rec *kgo.Record) bool {
	if len(rec.Value) > 0 {
		return false
	}
	marker := false
	for _, h := range rec.Headers {
		if h.Key == HeaderCode {
			return false
		}
		marker = marker || h.Key == HeaderRedriven
	}
	return marker
}

// take notes what a marker says and tells whether it could be understood. What
// it says of another partition, or of letters behind it, is not believed.
func (s *settled) take(rec *kgo.Record, in string) bool {
	list, home := "", ""
	for _, h := range rec.Headers {
		switch h.Key {
		case HeaderRedriven:
			list = string(h.Value)
		case HeaderRedrivenIn:
			home = string(h.Value)
		}
	}
	if home != in || !parseRedriven(list, func(at landedRun, _ Events) bool { return at.last < rec.Offset }) {
		return false
	}
	return parseRedriven(list, func(at landedRun, events Events) bool { s.add(at, events); return true })
}

// parseRedriven hands over the items of a marker's list. It returns false where
// the list makes no sense or item does not want it.
func parseRedriven(list string, item func(at landedRun, events Events) bool) bool {
	offset := func(text string) (int64, bool) {
		n, err := strconv.ParseInt(text, 10, 64)
		return n, err == nil && n >= 0 && text[0] != '+' && text[0] != '-'
	}
	before := int64(-1)
	for text := range strings.SplitSeq(list, ",") {
		where, which, some := strings.Cut(text, ":")
		from, to, run := strings.Cut(where, "-")
		var at landedRun
		var ok bool
		if at.first, ok = offset(from); !ok {
			return false
		}
		if at.last = at.first; run {
			if at.last, ok = offset(to); !ok || at.last <= at.first || some {
				return false
			}
		}
		var events Events
		if some {
			if events, ok = parseEvents(strings.ReplaceAll(which, "+", ",")); !ok || strings.Contains(which, ",") {
				return false
			}
		}
		if at.first <= before || !item(at, events) {
			return false
		}
		before = at.last
	}
	return true
}

// appendRedriven appends one item to a list.
func appendRedriven(list []byte, at landedRun, events Events) []byte {
	if len(list) > 0 {
		list = append(list, ',')
	}
	list = strconv.AppendInt(list, at.first, 10)
	if at.last > at.first {
		list = strconv.AppendInt(append(list, '-'), at.last, 10)
	}
	if len(events) > 0 {
		list = events.append(append(list, ':'), '+')
	}
	return list
}
