package consumer

import (
	"cmp"
	"iter"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// EventRun is a run of events of one record, both ends included.
type EventRun struct{ First, Last int }

// Events are events of one record by their index, from 0: runs that rise and do
// not touch. Their memory depends on the runs, not on the events.
type Events []EventRun

// MaxEvents bounds the events that a dead letter may name. It is as many as
// mapping.max_events_per_record may allow.
const MaxEvents = 1 << 20

// Add adds an event after those there are.
func (e *Events) Add(event int) {
	if n := len(*e); n > 0 && (*e)[n-1].Last+1 >= event {
		(*e)[n-1].Last = max((*e)[n-1].Last, event)
		return
	}
	*e = append(*e, EventRun{event, event})
}

// Count returns how many events there are.
func (e Events) Count() (n int) {
	for _, r := range e {
		n += r.Last - r.First + 1
	}
	return n
}

// Has reports whether the event is among them.
func (e Events) Has(event int) bool {
	i := sort.Search(len(e), func(i int) bool { return e[i].Last >= event })
	return i < len(e) && e[i].First <= event
}

// Overlap reports whether an event is among both.
func (e Events) Overlap(f Events) bool { return e.Without(f).Count() < e.Count() }

// Without returns the events that are not among f.
func (e Events) Without(f Events) Events {
	var left Events
	for _, r := range e {
		for len(f) > 0 && f[0].Last < r.First {
			f = f[1:]
		}
		for i := 0; i < len(f) && f[i].First <= r.Last; i++ {
			if r.First < f[i].First {
				left = append(left, EventRun{r.First, f[i].First - 1})
			}
			r.First = f[i].Last + 1
		}
		if r.First <= r.Last {
			left = append(left, r)
		}
	}
	return left
}

// And returns the events of both.
func (e Events) And(f Events) Events {
	both := slices.Concat(e, f)
	slices.SortFunc(both, func(a, b EventRun) int { return cmp.Compare(a.First, b.First) })
	joined := both[:0]
	for _, r := range both {
		if n := len(joined); n > 0 && r.First <= joined[n-1].Last+1 {
			joined[n-1].Last = max(joined[n-1].Last, r.Last)
			continue
		}
		joined = append(joined, r)
	}
	return joined
}

// String returns the runs as headers have them: "0", "0,3-5".
func (e Events) String() string { return string(e.append(nil)) }

// MarshalText implements encoding.TextMarshaler.
func (e Events) MarshalText() ([]byte, error) { return e.append(nil), nil }

func (e Events) append(b []byte) []byte {
	for i, r := range e {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(r.First), 10)
		if r.Last > r.First {
			b = strconv.AppendInt(append(b, '-'), int64(r.Last), 10)
		}
	}
	return b
}

// within returns e if its text takes at most so many bytes. If not, the smallest
// gaps are closed, as few as it takes: what is returned has every event of e, and
// some that are between two of them.
func (e Events) within(most int) Events {
	if len(e.append(nil)) <= most {
		return e
	}
	gap := func(i int) int { return e[i+1].First - e[i].Last }
	gaps := make([]int, len(e)-1) // by the run in front of each, the smallest first
	for i := range gaps {
		gaps[i] = i
	}
	slices.SortStableFunc(gaps, func(a, b int) int { return cmp.Compare(gap(a), gap(b)) })
	closed := make([]bool, len(e))
	shortened := func(n int) Events { // closing a gap never makes the text longer
		clear(closed)
		for _, i := range gaps[:n] {
			closed[i] = true
		}
		var wide Events
		for i, r := range e {
			if i > 0 && closed[i-1] {
				wide[len(wide)-1].Last = r.Last
			} else {
				wide = append(wide, r)
			}
		}
		return wide
	}
	n := sort.Search(len(gaps), func(n int) bool { return len(shortened(n).append(nil)) <= most })
	return shortened(n)
}

// ParseEvents reads what String returns, and the lists "1,2,3" that bridges before
// 1.0 wrote: numbers from 0, rising.
func ParseEvents(text string) (Events, bool) {
	var events Events
	last := -1
	for part := range strings.SplitSeq(text, ",") {
		from, to, run := strings.Cut(part, "-")
		if !run {
			to = from
		}
		first, ok1 := parseIndex(from)
		end, ok2 := parseIndex(to)
		if !ok1 || !ok2 || first <= last || run && end <= first {
			return nil, false
		}
		last = end
		if n := len(events); n > 0 && events[n-1].Last+1 == first {
			events[n-1].Last = last
		} else {
			events = append(events, EventRun{first, last})
		}
	}
	return events, true
}

func parseIndex(text string) (int, bool) {
	n, err := strconv.Atoi(text)
	return n, err == nil && n >= 0 && n < MaxEvents && text[0] != '+' && text[0] != '-'
}

// All yields the events one by one.
func (e Events) All() iter.Seq[int] {
	return func(yield func(int) bool) {
		for _, r := range e {
			for event := r.First; event <= r.Last; event++ {
				if !yield(event) {
					return
				}
			}
		}
	}
}
