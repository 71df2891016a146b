package kafka_test

import (
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datafly/bridge/internal/kafka"
)

// written is a connection that keeps when something was written.
type written struct {
	net.Conn
	began time.Time
	at    []time.Duration
}

func (w *written) Write(p []byte) (int, error) {
	w.at = append(w.at, time.Since(w.began))
	return len(p), nil
}

func TestFetchesAreSpacedOut(t *testing.T) {
	fetch := []byte{0, 0, 0, 4, 0, 1, 0, 16}
	heartbeat := []byte{0, 0, 0, 4, 0, 12, 0, 4}
	const ms = time.Millisecond
	for name, tc := range map[string]struct {
		on     bool
		writes [][]byte
		gaps   []time.Duration // before each of them
		want   []time.Duration
	}{
		"one after the other":        {true, [][]byte{fetch, fetch, fetch}, []time.Duration{0, 0, 0}, []time.Duration{0, 15 * ms, 30 * ms}},
		"only the rest of the time":  {true, [][]byte{fetch, fetch}, []time.Duration{0, 9 * ms}, []time.Duration{0, 15 * ms}},
		"held long by the broker":    {true, [][]byte{fetch, fetch}, []time.Duration{0, 40 * ms}, []time.Duration{0, 40 * ms}},
		"off":                        {false, [][]byte{fetch, fetch, fetch}, []time.Duration{0, ms, ms}, []time.Duration{0, ms, 2 * ms}},
		"requests that are no fetch": {true, [][]byte{fetch, heartbeat, heartbeat}, []time.Duration{0, ms, ms}, []time.Duration{0, ms, 2 * ms}},
		"a part of a length":         {true, [][]byte{{0, 0, 0, 1}, {0, 0}}, []time.Duration{0, 0}, []time.Duration{0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var p kafka.FetchPacer
				p.Pace(tc.on)
				w := &written{began: time.Now()}
				conn := p.Wrap(w)
				for i, text := range tc.writes {
					<-time.After(tc.gaps[i])
					if n, err := conn.Write(text); n != len(text) || err != nil {
						t.Fatalf("wrote %d bytes of %d, %v", n, len(text), err)
					}
				}
				if got, want := fmt.Sprint(w.at), fmt.Sprint(tc.want); got != want {
					t.Errorf("written at %s, want %s", got, want)
				}
			})
		})
	}
}
