package plaintext

import (
	"context"
	"io"
)

// Await returns the result of f, or ctx's error as soon as ctx ends: f may be in a
// read that nothing can interrupt, and is left behind then.
func Await[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() { // awaited below, or left behind with the process
		v, err := f()
		done <- outcome{v, err}
	}()
	select {
	case o := <-done:
		return o.value, o.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// Interruptible is a reader whose reads end with ctx.
type Interruptible struct {
	Ctx    context.Context
	Reader io.Reader
	buf    []byte
}

// Read implements io.Reader.
func (i *Interruptible) Read(p []byte) (int, error) {
	const most = 64 << 10
	if i.buf == nil {
		i.buf = make([]byte, most)
	}
	buf := i.buf[:min(len(p), most)] // not p: a read that is left behind still owns it
	n, err := Await(i.Ctx, func() (int, error) { return i.Reader.Read(buf) })
	return copy(p, buf[:n]), err
}
