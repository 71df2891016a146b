package plaintext

import (
	"errors"
	"os"
	"sync"
	"time"
)

// keptWait is how long a reader waits for a new value while there is an old one.
const keptWait = 250 * time.Millisecond

// Kept is a value read from files, a secret say, that is read again each time it
// is needed. While a file hangs, the last value is returned. It is safe for
// concurrent use.
type Kept[T any] struct {
	Read func() (T, error)
	// Hung, if not nil, is called when the last value begins to stand in for one
	// that cannot be read.
	Hung func(err error)

	mu     sync.Mutex // guards the fields below
	value  T
	has    bool       // there is a value
	flight *flight[T] // nil: nobody reads
	hangs  bool       // and that was reported
}

type flight[T any] struct {
	done  chan struct{} // closed when the fields below are set
	value T
	err   error
}

// Get returns what Read returns. With a value at hand it waits for a quarter of a
// second at most.
func (k *Kept[T]) Get() (T, error) {
	k.mu.Lock()
	f := k.flight
	if f == nil {
		f = &flight[T]{done: make(chan struct{})}
		k.flight = f
		go k.read(f) // awaited below, or by who comes next
	}
	value, has := k.value, k.has
	k.mu.Unlock()
	if !has {
		<-f.done
		return f.value, f.err
	}
	timer := time.NewTimer(keptWait)
	defer timer.Stop()
	select {
	case <-f.done:
		return f.value, f.err
	case <-timer.C:
		return value, nil
	}
}

func (k *Kept[T]) read(f *flight[T]) {
	f.value, f.err = k.Read()
	k.mu.Lock()
	defer k.mu.Unlock()
	defer close(f.done)
	k.flight = nil
	hangs := errors.Is(f.err, os.ErrDeadlineExceeded)
	switch {
	case f.err == nil:
		k.value, k.has = f.value, true
	case hangs && k.has:
		if !k.hangs && k.Hung != nil {
			k.Hung(f.err)
		}
		f.value, f.err = k.value, nil
	}
	k.hangs = hangs && k.has
}
