package memory_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/datafly/bridge/internal/memory"
)

// The pages publish the formula that the function computes.
func TestPublishedBound(t *testing.T) {
	const formula = `2 * (delivery.max_buffered + rows in flight)
  + 2 * brokers * kafka.fetch_max_bytes * 7
  + 0.2 MiB * partitions + 96 MiB

rows in flight = min(partitions * delivery.max_bytes, 0.45 * delivery.max_buffered)`
	for _, file := range []string{"operations.md", "performance.md"} {
		if !strings.Contains(page(t, file), formula) {
			t.Errorf("docs/%s does not have the formula:\n%s", file, formula)
		}
	}
	for _, p := range []memory.Plan{
		defaults(1), defaults(4), defaults(16), defaults(300),
		{MaxBuffered: 256 * mib, MaxBytes: 8 * mib, FetchMaxBytes: 2 * mib, Brokers: 6, Partitions: 15},
	} {
		buffered, partitions := float64(p.MaxBuffered), float64(p.Partitions)
		rows := min(partitions*float64(p.MaxBytes), 0.45*buffered)
		want := 2*(buffered+rows) + 2*float64(p.Brokers)*float64(p.FetchMaxBytes)*7 + 0.2*mib*partitions + 96*mib
		if got := float64(p.Bound()); got < want-mib || got > want+mib {
			t.Errorf("%+v: got a bound of %.1f MiB, the formula has %.1f", p, got/mib, want/mib)
		}
	}
	reported := fmt.Sprintf("%d MiB for 4 partitions, %d MiB for 16 and %d MiB for 300",
		memory.MiB(defaults(4).Bound()), memory.MiB(defaults(16).Bound()), memory.MiB(defaults(300).Bound()))
	if !strings.Contains(page(t, "operations.md"), reported) {
		t.Errorf("docs/operations.md does not contain %q", reported)
	}
	if got := (defaults(300).Bound() - defaults(300).SoftLimit(0)) / mib; !strings.Contains(page(t, "operations.md"), fmt.Sprintf("%d MiB below the bound", got)) {
		t.Errorf("docs/operations.md does not contain that the soft limit is %d MiB below the bound", got)
	}
}

// page returns a page of the documentation.
func page(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile("../../docs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
