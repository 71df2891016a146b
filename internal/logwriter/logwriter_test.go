package logwriter

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

// sink is a destination that can stall and fail.
type sink struct {
	mu    sync.Mutex // held: it stalls
	b     bytes.Buffer
	fails int // writes to come that fail
	half  bool
	not   string // fails once
}

// failAt has the write of this entry fail, once.
func (s *sink) failAt(entry string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.not = entry
}

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.not != "" && string(p) == s.not {
		s.fails, s.not = 1, ""
	}
	if s.fails > 0 {
		s.fails--
		n := 0
		if s.half {
			n, _ = s.b.Write(p[:len(p)/2])
		}
		return n, errors.New("no space left on device")
	}
	return s.b.Write(p)
}

func (s *sink) text(t *testing.T, w *Writer) string {
	t.Helper()
	if !w.Flush(time.Minute) {
		t.Fatal("got no end of writing within a minute")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func gap(n int64) []byte { return fmt.Appendf(nil, "%d lost\n", n) }

func TestOrderIsKept(t *testing.T) {
	var s sink
	w := New(&s)
	var want strings.Builder
	line := make([]byte, 0, 16)
	for i := range MaxEntries {
		line = fmt.Appendf(line[:0], "line %d\n", i) // the caller reuses its buffer
		want.Write(line)
		if n, err := w.Write(line); n != len(line) || err != nil {
			t.Fatalf("got %d, %v", n, err)
		}
	}
	if got := s.text(t, w); got != want.String() || w.Dropped() != 0 || w.Busy() {
		t.Errorf("got %d bytes, %d dropped, want %d bytes in order", len(got), w.Dropped(), want.Len())
	}
}

// A stalled reader blocks no caller; entries that do not fit are counted, and reported
// where it is missing.
func TestAReaderThatStalls(t *testing.T) {
	for _, size := range []int{8, 4 << 10} { // one bound is met first, then the other
		var s sink
		w := New(&s)
		w.ReportGaps(gap)
		s.mu.Lock()
		const n = 3 * MaxEntries
		line := func(i int) string { return fmt.Sprintf("%-*d\n", size-1, i) }
		for i := range n {
			_, _ = io.WriteString(w, line(i))
		}
		if w.bytes > MaxBytes || len(w.queue) > MaxEntries {
			t.Errorf("got %d bytes in %d entries waiting, want at most %d in %d", w.bytes, len(w.queue), MaxBytes, MaxEntries)
		}
		if w.Flush(time.Millisecond) {
			t.Error("got all written to a reader that stalls")
		}
		s.mu.Unlock()
		kept := int64(n) - w.Dropped()
		var want strings.Builder
		for i := range kept {
			want.WriteString(line(int(i)))
		}
		fmt.Fprintf(&want, "%d lost\n", w.Dropped())
		_ = s.text(t, w)
		_, _ = io.WriteString(w, "after\n")
		want.WriteString("after\n")
		if got := s.text(t, w); got != want.String() {
			t.Errorf("got %d bytes that end in %q, want %d that end in %q", len(got), got[max(0, len(got)-40):], want.Len(), want.String()[want.Len()-40:])
		}
		if kept == 0 || w.Dropped() == 0 {
			t.Errorf("got %d kept and %d dropped, want some of each", kept, w.Dropped())
		}
	}
}

// Entries that cannot be written count as well, and a torn line is ended.
func TestADestinationThatFails(t *testing.T) {
	s := sink{fails: 3, half: true}
	w := New(&s)
	w.ReportGaps(gap)
	for _, line := range []string{"one.\n", "two.\n", "three.\n", "four.\n"} {
		_, _ = io.WriteString(w, line)
	}
	if got, want := s.text(t, w), "on\ntw\nthr\nfour.\n3 lost\n"; got != want || w.Dropped() != 3 {
		t.Errorf("got %q and %d dropped, want %q and 3", got, w.Dropped(), want)
	}
}

func TestAnEntryLargerThanTheBound(t *testing.T) {
	var s sink
	w := New(&s)
	_, _ = w.Write(make([]byte, 2*MaxBytes))
	if got := len(s.text(t, w)); got != 2*MaxBytes {
		t.Errorf("got %d bytes, want all", got)
	}
}

// A gap entry that cannot be written is reported again later.
func TestAGapThatCannotBeWrittenIsReportedLater(t *testing.T) {
	var s sink
	w := New(&s)
	w.ReportGaps(gap)
	write := func(line string, fails int) {
		s.mu.Lock()
		s.fails = fails
		s.mu.Unlock()
		_, _ = io.WriteString(w, line)
		_ = s.text(t, w)
	}
	for _, line := range []string{"one\n", "two\n", "three\n"} {
		write(line, 1)
	}
	s.failAt("3 lost\n")
	write("four\n", 0)
	write("five\n", 0)
	if got, want := s.text(t, w), "four\nfive\n3 lost\n"; got != want || w.Dropped() != 3 {
		t.Errorf("got %q and %d dropped, want %q and 3", got, w.Dropped(), want)
	}
}
