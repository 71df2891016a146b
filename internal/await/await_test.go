package await_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/datafly/bridge/internal/await"
)

// probe is a test that notes its end instead of ending.
type probe struct {
	testing.TB
	deadline time.Time
	failed   string
}

func (*probe) Helper() {}

func (p *probe) Fatalf(format string, args ...any) { p.failed = fmt.Sprintf(format, args...) }

func (p *probe) Deadline() (time.Time, bool) { return p.deadline, !p.deadline.IsZero() }

func TestThat(t *testing.T) {
	never := func() bool { return false }
	for name, tc := range map[string]struct {
		binary time.Duration // until the test binary's own deadline, 0 for none
		after  time.Duration // until it holds, 0 for never
		took   time.Duration
		failed string
	}{
		"holds at once":           {after: time.Nanosecond, took: 0},
		"holds late":              {after: 4 * time.Minute, took: 4 * time.Minute},
		"never holds":             {took: await.Patience, failed: "waited 5m0s for this: rows\ngot 3"},
		"the binary's end is far": {binary: time.Hour, took: await.Patience, failed: "waited 5m0s"},
		"the binary's end is near": {binary: time.Minute, took: 30 * time.Second,
			failed: "waited 30s for this: rows\ngot 3"},
		"the binary's end is over us": {binary: time.Second, failed: "waited 0s"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				p := &probe{TB: t}
				if tc.binary > 0 {
					p.deadline = began.Add(tc.binary)
				}
				holds := never
				if tc.after > 0 {
					holds = func() bool { return time.Since(began) >= tc.after-time.Nanosecond }
				}
				await.That(p, "rows", holds, func() string { return "got 3" })
				if got := time.Since(began).Round(time.Second); got != tc.took {
					t.Errorf("waited %v, want %v", got, tc.took)
				}
				if (p.failed == "") != (tc.failed == "") || !strings.HasPrefix(p.failed, tc.failed) {
					t.Errorf("got %q, want %q", p.failed, tc.failed)
				}
			})
		})
	}
}
