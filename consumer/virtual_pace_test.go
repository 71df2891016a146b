//go:build synctests

package consumer_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/datafly/bridge/internal/kafka"
)

// Events that trickle in gather at the broker. None of them waits longer than fetches
// are apart, and the first after a pause does not wait.
func TestVirtualFetchesGather(t *testing.T) {
	virtually(t, worldSetup{partitions: 1}, func(w *world) {
		w.join().joined(1)
		var fetches atomic.Int64
		w.kafka.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
			w.kafka.KeepControl()
			fetches.Add(1)
			return nil, nil, false
		})
		w.pass(time.Second)
		before, began := fetches.Load(), time.Now()
		for i := range 300 {
			w.produce(0, fmt.Sprintf("e%d", i))
			w.pass(time.Millisecond)
		}
		took := time.Since(began)
		if n, want := fetches.Load()-before, int64(took/kafka.FetchInterval); n < want-1 || n > want+1 {
			t.Errorf("%d fetches in %v, want one each %v", n, took, kafka.FetchInterval)
		}
		w.pass(kafka.FetchInterval)
		if left := w.unsettled(); left > 0 {
			t.Errorf("%d events wait after %v, want none", left, kafka.FetchInterval)
		}
		w.pass(time.Second)
		w.produce(0, "late")
		w.pass(0)
		if left := w.unsettled(); left > 0 {
			t.Errorf("the first event after a pause waits, want it read at once")
		}
	})
}
