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
				if tc.on {
					p.Polled(1, false)
				}
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

// Fetches are spaced out while few records come, by the rate of the last tenth of a second,
// and never while more are to be had.
func TestFetchesAreSpacedOutAtLowRates(t *testing.T) {
	const ms = time.Millisecond
	type polls struct {
		n       int // of them, one after the other
		every   time.Duration
		records int // of each
		more    bool
	}
	for name, tc := range map[string]struct {
		polls []polls
		want  bool
	}{
		"nothing yet":                       {nil, false},
		"1,000 a second":                    {[]polls{{100, 15 * ms, 15, false}}, true},
		"39,000 a second, spaced out":       {[]polls{{100, 15 * ms, 585, false}}, true},
		"39,000 a second, not spaced out":   {[]polls{{100, 2 * ms, 78, false}}, true},
		"45,000 a second, spaced out":       {[]polls{{100, 15 * ms, 675, false}}, false},
		"45,000 a second, not spaced out":   {[]polls{{100, 2 * ms, 90, false}}, false},
		"more are to be had":                {[]polls{{100, 15 * ms, 15, false}, {1, 15 * ms, 15, true}}, false},
		"the last of them was just read":    {[]polls{{10, 2 * ms, 500, true}, {5, 15 * ms, 15, false}}, false},
		"the last of them was read before":  {[]polls{{10, 2 * ms, 500, true}, {7, 15 * ms, 15, false}}, true},
		"many, and then a few after a rest": {[]polls{{100, 2 * ms, 300, false}, {1, time.Second, 1, false}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var p kafka.FetchPacer
				for _, polls := range tc.polls {
					for range polls.n {
						<-time.After(polls.every)
						p.Polled(polls.records, polls.more)
					}
				}
				w := &written{began: time.Now()}
				conn := p.Wrap(w)
				for range 2 {
					if _, err := conn.Write([]byte{0, 0, 0, 4, 0, 1, 0, 16}); err != nil {
						t.Fatal(err)
					}
				}
				if got := w.at[1] > 0; got != tc.want {
					t.Errorf("spaced out: %t, want %t", got, tc.want)
				}
			})
		})
	}
}
