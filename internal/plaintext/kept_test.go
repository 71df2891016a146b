package plaintext

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// While a file hangs its last value serves, at once; any other error is an error.
func TestKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var value string
		var fails error
		var takes time.Duration
		reports := 0
		file := func(v string, err error, d time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			value, fails, takes = v, err, d
		}
		k := Kept[string]{
			Read: func() (string, error) {
				mu.Lock()
				v, err, d := value, fails, takes
				mu.Unlock()
				<-time.After(d)
				return v, err
			},
			Hung: func(error) { reports++ },
		}
		get := func(want string, wantErr error, within time.Duration) {
			t.Helper()
			began := time.Now()
			got, err := k.Get()
			if wantErr == nil && got != want || !errors.Is(err, wantErr) || time.Since(began) > within {
				t.Errorf("got %q, %v after %v, want %q, %v within %v", got, err, time.Since(began), want, wantErr, within)
			}
		}
		hangs := func() {
			file("", os.ErrDeadlineExceeded, Patience)
			for range 40 {
				get("b", nil, keptWait)
			}
			<-time.After(Patience)
			synctest.Wait()
		}
		file("", os.ErrDeadlineExceeded, Patience)
		get("", os.ErrDeadlineExceeded, Patience) // there is no value yet
		file("a", nil, time.Second)
		get("a", nil, time.Second) // a slow disk is waited for at the start
		file("b", nil, time.Second)
		get("a", nil, keptWait)
		<-time.After(time.Second)
		synctest.Wait()
		hangs() // with b, which came late
		file("c", nil, 0)
		get("c", nil, 0)
		file("b", nil, 0)
		get("b", nil, 0)
		hangs()
		if reports != 2 {
			t.Errorf("got %d reports of values that stood in twice, want 2", reports)
		}
		file("", fs.ErrNotExist, 0)
		get("", fs.ErrNotExist, 0)
	})
}
