// Package logwriter writes a log without blocking its callers. A pipe that nobody
// reads, a terminal stopped with Ctrl-S or a hanging disk blocks only the one goroutine
// that writes. Entries beyond the bound are dropped and counted.
package logwriter

import (
	"bytes"
	"io"
	"sync"
	"time"
)

// Bounds of the queue.
const (
	MaxBytes   = 256 << 10
	MaxEntries = 4_000
)

// Writer is an io.Writer that never blocks and never fails. Each Write is one entry,
// usually one line of a log. Entries are written in order, whole, or dropped. It is safe
// for concurrent use.
type Writer struct {
	dst io.Writer

	mu         sync.Mutex // guards the fields below
	gap        func(lost int64) []byte
	queue      []entry // the first is being written
	bytes      int
	writing    bool          // a goroutine is writing the queue
	idle       chan struct{} // closed when the queue is written; nil while nobody waits
	dropping   bool          // the queue was full and is not yet half empty
	lost       int64         // dropped or not written, in total
	unreported int64         // of these, not yet reported in the log
	torn       bool          // the last entry was written in part
}

// entry is one Write, or the report of a gap.
type entry struct {
	text []byte
	gap  int64 // how many entries it reports missing; 0: it is no report
}

// New returns a Writer to dst. A goroutine runs while entries are queued.
func New(dst io.Writer) *Writer { return &Writer{dst: dst} }

// ReportGaps sets the function that returns the entry to write in place of missing
// ones, once writing works again.
func (w *Writer) ReportGaps(gap func(lost int64) []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gap = gap
}

// Unwrap returns the destination.
func (w *Writer) Unwrap() io.Writer { return w.dst }

// Dropped returns how many entries were dropped or could not be written.
func (w *Writer) Dropped() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost
}

// Busy reports whether entries are queued.
func (w *Writer) Busy() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queue) > 0
}

// Write queues a copy of one entry.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// An entry larger than the bound is taken while the queue is empty.
	if full := w.bytes+len(p) > MaxBytes && w.bytes > 0 || len(w.queue) >= MaxEntries; full || w.dropping {
		w.dropping = true
		w.lost, w.unreported = w.lost+1, w.unreported+1
		return len(p), nil
	}
	w.add(entry{text: bytes.Clone(p)})
	return len(p), nil
}

// add is called with mu held.
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
		text := next.text
		if torn { // end the line that was written in part
			text = append([]byte{'\n'}, text...)
		}
		n, err := w.dst.Write(text)
		w.mu.Lock()
		w.queue[0] = entry{}
		w.queue = w.queue[1:]
		w.bytes -= len(next.text)
		if err != nil {
			w.torn = torn || n > 0
			if next.gap > 0 { // counted as lost already, but not reported
				w.unreported += next.gap
			} else {
				w.lost, w.unreported = w.lost+1, w.unreported+1
			}
			continue
		}
		w.torn = false
		if w.unreported > 0 && (!w.dropping || w.bytes <= MaxBytes/2 && len(w.queue) <= MaxEntries/2) {
			w.dropping = false
			if w.gap != nil { // the gap is behind what is queued
				w.add(entry{text: w.gap(w.unreported), gap: w.unreported})
			}
			w.unreported = 0
		}
	}
	w.writing, w.dropping, w.queue = false, false, nil
	if w.idle != nil {
		close(w.idle)
		w.idle = nil
	}
}

// Flush waits until everything is written, at most limit, and reports whether it is.
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

// Sync is Flush with a limit of one second, for zap.
func (w *Writer) Sync() error {
	w.Flush(time.Second)
	return nil
}
