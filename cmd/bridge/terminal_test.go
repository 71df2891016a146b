package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
)

// What commands write to a terminal is tested in test/e2e.

// What a pipe gets is the same text each time but for times and rates.
func TestDemoInAPipeIsGolden(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := execute([]string{"demo", "--events", "300", "--topic", "shop", "--ops-address", "127.0.0.1:0", "--set", "admin.address=127.0.0.1:0"}, strings.NewReader(""), &stdout, &stderr); code != exitFine {
		t.Fatalf("got exit code %d and %q, want %d", code, stderr.String(), exitFine)
	}
	report := stdout.String()
	head, counts, _ := strings.Cut(report, "\n300 events in ")
	if want := regexp.MustCompile(`^SELECT \* FROM datafly\.events\.demo ORDER BY event_timestamp DESC LIMIT 10\n\nevent_name +event_type +message_id .*\n`); !want.MatchString(head) || strings.Count(head, "\n") != 13 {
		t.Errorf("got %q, want the statement, the heads of the columns and ten rows", head)
	}
	times := regexp.MustCompile(`\d+(\.\d+)?(ms|s|µs)|\(\d+ events/s\)`)
	want := `T T, acknowledged in T (p50), T (p99)

  produced        300   acknowledged by Kafka
  distinct        297   message ids in the table (297 rows, 0 duplicates)
  rejected          3   in the dead-letter topic: CODES
  filtered          0   tombstones
  lost              0   produced - distinct - rejected - filtered
`
	got := times.ReplaceAllString(counts, "T")
	got = regexp.MustCompile(`(topic: )[a-z_0-9, ]+`).ReplaceAllString(got, "${1}CODES")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	line := regexp.MustCompile(`^bridge: shop -> datafly\.events\.demo; its state at http://127\.0\.0\.1:\d+, metrics at /metrics\nconsole and install API: http://127\.0\.0\.1:\d+\n(events in \d+   rows delivered \d+   rejected \d+   filtered \d+   lag \d+   ack p50 \S+ p99 \S+\n)+$`)
	if !line.MatchString(stderr.String()) {
		t.Errorf("got %q on stderr, want the address and plain lines of progress", stderr.String())
	}
}

func TestRunInAPipeLogsJSONAlone(t *testing.T) {
	args := append([]string{"run", "--group", "once", "--until", "now"}, settings(t)...)
	var stdout, stderr bytes.Buffer
	if code := execute(args, strings.NewReader(""), &stdout, &stderr); code != exitFine {
		t.Fatalf("got exit code %d and %q, want %d", code, stderr.String(), exitFine)
	}
	for line := range strings.Lines(stderr.String()) {
		if !strings.HasPrefix(line, `{"level":`) {
			t.Errorf("got %q, want JSON", line)
		}
	}
}
