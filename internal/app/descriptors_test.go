package app

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/datafly/bridge/internal/config"
)

func TestDescriptorsThatAreShort(t *testing.T) {
	open, limit, fails := 20, 64, error(nil)
	d := descriptorWatch{count: func() (int, int, error) { return open, limit, fails }}
	at := time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)
	look := func(after time.Duration, want ...string) {
		t.Helper()
		at = at.Add(after)
		reason := d.short(at, 120)
		if reason == nil || len(want) == 0 {
			if (reason == nil) != (len(want) == 0) {
				t.Errorf("got %v, want %q", reason, want)
			}
			return
		}
		for _, w := range want {
			if !strings.Contains(reason.Code+" "+reason.Text+" "+reason.Remedy, w) {
				t.Errorf("got %+v, want %q in it", *reason, w)
			}
		}
	}
	look(0)
	open = 57
	look(descriptorsEvery / 2) // not counted again so soon
	look(descriptorsEvery, "too_few_descriptors", "57 of 64", "needs about 120", "raise the limit to 1024")
	open = 20
	look(shortFor/2, "57 of 64") // it comes and goes
	look(shortFor)
	fails = &os.PathError{Op: "open", Path: "/dev/fd", Err: syscall.EMFILE}
	look(descriptorsEvery, "64 of 64")
	fails = os.ErrNotExist // no such folder on this system
	look(2 * shortFor)
	open, limit, fails = 0, 0, nil // no limit is known
	look(descriptorsEvery)
}

// Each further integration needs connections to the brokers.
func TestDescriptorsOfIntegrations(t *testing.T) {
	c := config.Defaults()
	var wanted []config.Integration
	for _, name := range []string{"one", "two", "three", "off"} {
		wanted = append(wanted, config.Integration{Name: name, Enabled: name != "off", Config: &c})
	}
	l := newMemoryLimit(zap.NewNop())
	l.plan(wanted)
	for _, i := range wanted {
		l.resize(i.Name, 3, 10)
	}
	if got, want := l.descriptorsNeeded(), ownDescriptors+3*10+2*(3+moreDescriptors); got != want {
		t.Errorf("got %d, want %d", got, want)
	}
}
