package zerobus_test

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datafly/bridge/zerobus"
)

// A writer that waits for a limit uses the new one at once, however long the
// old one would have had it wait.
func TestRateLimitChangesWhileWritersWait(t *testing.T) {
	for _, tc := range []struct {
		name   string
		before float64
		after  float64
		want   time.Duration // of 3 rows behind the first, after the change
	}{
		{"raised", 0.001, 1, 2 * time.Second}, // the first of a new limit is free
		{"lifted", 0.001, 0, 0},
		{"no number lifts it too", 0.001, math.NaN(), 0},
		{"lowered", 0.01, 0.005, 400 * time.Second},
		{"the same continues", 0.01, 0.01, 290 * time.Second}, // 10 s of the first 100 have passed
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := virtual(t, func(c *zerobus.Config) { c.RateLimit = tc.before })
				write(t, b, rows(1)) // the burst
				done := inBackground(t.Context(), b, rows(3))
				after(10 * time.Second)
				changed := time.Now()
				b.SetRateLimit(tc.after)
				if err := <-done; err != nil {
					t.Fatalf("Write: %v", err)
				}
				if got := time.Since(changed).Round(time.Millisecond); got != tc.want {
					t.Errorf("3 rows took %v after the change, want %v", got, tc.want)
				}
			})
		})
	}
}

// A limit may be set where there was none.
func TestRateLimitSetLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := virtual(t, nil)
		began := time.Now()
		write(t, b, rows(1000))
		b.SetRateLimit(100)
		write(t, b, rows(300)) // 100 of them at once
		if got, want := time.Since(began).Round(time.Millisecond), 2*time.Second; got != want {
			t.Errorf("300 rows at 100/s took %v, want %v", got, want)
		}
	})
}
