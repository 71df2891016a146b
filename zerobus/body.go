package zerobus

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// batch is one Write's rows on their way out. Its request id stays the same
// over all attempts.
type batch struct {
	rows   [][]byte
	id     string
	size   int64     // bytes on the wire before compression
	packed []byte    // the compressed HTTP body, once it was made
	form   *encoding // of the rows, under grpc
	alone  bool      // the next attempt travels on a connection of its own

	attempts int // requests sent
}

func newBatch(rows [][]byte, size int64) *batch {
	return &batch{rows: rows, id: newRequestID(), size: size}
}

// newRequestID returns a random UUID (RFC 9562, version 4).
func newRequestID() string {
	var id [16]byte
	rand.Read(id[:]) // never fails
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[0:4], id[4:6], id[6:8], id[8:10], id[10:])
}

var gzipWriters = sync.Pool{New: func() any {
	w, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic(err) // the level is a constant
	}
	return w
}}

// pack compresses the body, once for all attempts.
func (b *batch) pack(before, after string) error {
	if b.packed != nil {
		return nil
	}
	var out bytes.Buffer
	w := gzipWriters.Get().(*gzip.Writer)
	defer gzipWriters.Put(w)
	w.Reset(&out)
	if _, err := io.Copy(w, &rowReader{rows: b.rows, before: before, after: after}); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	b.packed = out.Bytes()
	return nil
}

func (b *batch) open(before, after string) *body {
	if b.packed != nil {
		return &body{src: bytes.NewReader(b.packed)}
	}
	return &body{src: &rowReader{rows: b.rows, before: before, after: after}}
}

// rowReader reads before, rows with commas between, after, straight from the
// rows: nothing is joined in memory.
type rowReader struct {
	rows          [][]byte
	before, after string
	part          int // 0 before; odd: a row; even: the comma before the next row, or after
	off           int
}

func (r *rowReader) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if r.part > r.last() {
			return n, io.EOF
		}
		c := r.copy(p[n:])
		n += c
		r.off += c
		if r.off == r.partLen() {
			r.part, r.off = r.part+1, 0
			if r.part == 1 && len(r.rows) == 0 {
				r.part = r.last()
			}
		}
	}
	return n, nil
}

// last is the number of the part after the rows.
func (r *rowReader) last() int { return max(2*len(r.rows), 2) }

func (r *rowReader) text() string {
	switch r.part {
	case 0:
		return r.before
	case r.last():
		return r.after
	}
	return ","
}

func (r *rowReader) isRow() bool { return r.part%2 == 1 }

func (r *rowReader) copy(p []byte) int {
	if r.isRow() {
		return copy(p, r.rows[r.part/2][r.off:])
	}
	return copy(p, r.text()[r.off:])
}

func (r *rowReader) partLen() int {
	if r.isRow() {
		return len(r.rows[r.part/2])
	}
	return len(r.text())
}

// errDetached is what net/http reads from a body whose caller is gone.
var errDetached = errors.New("the request is over")

// body lets go of the rows on demand: net/http may read a request body after
// Do has returned, and the rows are the caller's to reuse by then.
type body struct {
	mu       sync.Mutex // held while rows are being copied
	src      io.Reader
	read     int64
	detached bool
}

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.detached {
		return 0, errDetached
	}
	n, err := b.src.Read(p)
	b.read += int64(n)
	return n, err
}

// Close ends the reading, as net/http asks for.
func (b *body) Close() error {
	b.detach()
	return nil
}

// detach returns once no Read is touching the rows and none ever will. It
// reports how many bytes were read.
func (b *body) detach() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.detached = true
	return b.read
}
