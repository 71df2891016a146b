// Package logwriter writes a log without waiting for whoever reads it. A pipe that
// nobody reads, a terminal stopped with Ctrl-S and a disk that hangs hold up the one
// goroutine that writes, and nothing else; what does not fit meanwhile is dropped and
// counted.
package logwriter

import (
	"bytes"
	"io"
	"sync"
	"time"
)

// Bounds of what waits to be written.
const (
	MaxBytes   = 256 << 10
	MaxEntries = 4_000
)

// Writer is an io.Writer that never waits and never fails. Each Write is one entry,
// one line of a log usually: entries are written in their order, whole, or dropped.
// It is safe for concurrent use.
type Writer struct {
	dst io.Writer

	mu       sync.Mutex // guards the fields below
	gap      func(lost int64) []byte
	queue    []entry // the first is being written
	bytes    int
	writing  bool          // a goroutine is writing the queue
	idle     chan struct{} // closed when it has written all; nil while nobody waits
	dropping bool          // the queue was full and is not yet half empty
	lost     int64         // of all time
	unsaid   int64         // of these, not yet reported in the log
	torn     bool          // the last entry was written in part
}

// entry is what one Write took, or the report of a gap.
type entry struct {
	text []byte
	gap  int64 // how many entries it reports missing; 0: it is no report
}

// New makes a Writer to dst. It starts no goroutine; one runs while there is
// something to write.
func New(dst io.Writer) *Writer { return &Writer{dst: dst} }

// ReportGaps has the entry that gap returns written where entries are missing, once
// writing works again.
func (w *Writer) ReportGaps(gap func(lost int64) []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gap = gap
}

// Unwrap returns what is written to.
func (w *Writer) Unwrap() io.Writer { return w.dst }

// Dropped returns how many entries were dropped or could not be written.
func (w *Writer) Dropped() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost
}

// Busy reports whether entries wait to be written.
func (w *Writer) Busy() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queue) > 0
}

// Write takes a copy of one entry.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// An entry larger than the bound is taken while nothing waits.
	if full := w.bytes+len(p) > MaxBytes && w.bytes > 0 || len(w.queue) >= MaxEntries; full || w.dropping {
		w.dropping = true
		w.miss()
		return len(p), nil
	}
	w.add(entry{text: bytes.Clone(p)})
	return len(p), nil
}

func (w *Writer) miss() {
	w.lost++
	w.unsaid++
}

func (w *Writer) add(e entry) {
	w.queue = append(w.queue, e)
	w.bytes += len(e.text)
	if !w.writing {
		w.writing = true
		go w.drain() // ends with the queue; Flush waits for it
	}
}

// drain writes until the queue is empty.
func (w *Writer) drain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.queue) > 0 {
		next, torn := w.queue[0], w.torn
		w.mu.Unlock()
		n, err := w.put(next.text, torn)
		w.mu.Lock()
		w.queue[0] = entry{}
		w.queue = w.queue[1:]
		w.bytes -= len(next.text)
		switch {
		case err != nil && next.gap > 0: // these are counted already, and to be reported again
			w.torn = torn || n > 0
			w.unsaid += next.gap
		case err != nil:
			w.torn = torn || n > 0
			w.miss()
		case w.unsaid > 0 && (!w.dropping || w.bytes <= MaxBytes/2 && len(w.queue) <= MaxEntries/2):
			// It flows again, and behind what waits there is the gap.
			w.torn, w.dropping = false, false
			if w.gap != nil {
				w.add(entry{text: w.gap(w.unsaid), gap: w.unsaid})
			}
			w.unsaid = 0
		default:
			w.torn = false
		}
	}
	w.writing, w.dropping, w.queue = false, false, nil
	if w.idle != nil {
		close(w.idle)
		w.idle = nil
	}
}

// put writes one entry, behind a line break if the one before was torn.
func (w *Writer) put(text []byte, torn bool) (int, error) {
	if torn {
		text = append([]byte{'\n'}, text...)
	}
	return w.dst.Write(text)
}

// Flush waits until everything is written, no longer than limit, and reports
// whether it is.
func (w *Writer) Flush(limit time.Duration) bool {
	w.mu.Lock()
	if !w.writing {
		w.mu.Unlock()
		return true
	}
	if w.idle == nil {
		w.idle = make(chan struct{})
	}
	idle := w.idle
	w.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-idle:
		return true
	case <-timer.C:
		return false
	}
}

// syncWithin bounds Sync.
const syncWithin = time.Second

// Sync is Flush within a second, for zap.
func (w *Writer) Sync() error {
	w.Flush(syncWithin)
	return nil
}
