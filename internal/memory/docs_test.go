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
	const formula = `2 * (buffered + rows in flight)
  + 4 * brokers * fetched
  + 0.2 MiB * partitions + 80 MiB + 2 MiB * (integrations - 1)

buffered       = delivery.max_buffered; half as much again with two integrations or more
rows in flight = min(partitions * delivery.max_bytes, 0.45 * buffered)
fetched        = max(kafka.fetch_max_bytes, 64 KiB * integrations)`
	for _, file := range []string{"operations.md", "performance.md"} {
		if !strings.Contains(page(t, file), formula) {
			t.Errorf("docs/%s does not have the formula:\n%s", file, formula)
		}
	}
	for _, p := range []memory.Plan{
		defaults(1), defaults(4), defaults(16), defaults(300), shared(2, 8), shared(20, 60), shared(50, 300), shared(200, 800),
		{MaxBuffered: 256 * mib, MaxBytes: 8 * mib, FetchMaxBytes: 2 * mib, Brokers: 6, Partitions: 15},
	} {
		buffered, partitions, integrations := float64(p.MaxBuffered), float64(p.Partitions), float64(max(p.Integrations, 1))
		fetched := max(float64(p.FetchMaxBytes), integrations*64*1024)
		if p.Integrations > 1 {
			buffered *= 1.5
		}
		rows := min(partitions*float64(p.MaxBytes), 0.45*buffered)
		want := 2*(buffered+rows) + 4*float64(p.Brokers)*fetched + 0.2*mib*partitions + 80*mib + 2*mib*(integrations-1)
		if got := float64(p.Bound()); got < want-mib || got > want+mib {
			t.Errorf("%+v: got a bound of %.1f MiB, the formula has %.1f", p, got/mib, want/mib)
		}
	}
	reported := fmt.Sprintf("%d MiB for 4 partitions, %d MiB for 16 and %d MiB for 300",
		memory.MiB(defaults(4).Bound()), memory.MiB(defaults(16).Bound()), memory.MiB(defaults(300).Bound()))
	if !strings.Contains(page(t, "operations.md"), reported) {
		t.Errorf("docs/operations.md does not contain %q", reported)
	}
	reported = fmt.Sprintf("%d MiB for 5 integrations with 4 partitions each, %d MiB for 20 and %d MiB for 50",
		memory.MiB(shared(5, 20).Bound()), memory.MiB(shared(20, 80).Bound()), memory.MiB(shared(50, 200).Bound()))
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
