package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/datafly/bridge/internal/kafka"
	"github.com/datafly/bridge/internal/kafkatest"
)

func TestReplayReportSaysWhatIsOutOfTheOrdinary(t *testing.T) {
	r := &replayReport{Group: "live", To: "offset 3", integration: "default"}
	r.Members = []kafka.Member{{ID: "m-1\x1b[2J", InstanceID: "bridge-0", ClientID: "c\r\nl", Host: "10.0.0.1", Partitions: 2}, {ID: "m-2"}}
	r.ReplaySummary = kafka.Summarize([]kafka.Move{
		{Topic: "a", Partition: 0, Committed: 9, Requested: 3, Target: 5, LogStart: 5, LogEnd: 10, Redelivered: 4},
		{Topic: "a", Partition: 1, Committed: -1, Requested: 3, Target: 2, LogEnd: 2, Skipped: 2},
		{Topic: "a", Partition: 2, Committed: 7, Requested: 3, Target: 3, LogEnd: 4},
		{Topic: "a", Partition: 3, Committed: 3, Requested: 3, Target: 3, LogEnd: 4},
	})
	text := textOf(r.text)
	for _, want := range []string{
		"group live to offset 3: dry run, nothing is changed\n",
		"a      0          9          5       10       5        4      0        the log begins at 5: 2 events before it are removed already\n",
		"a      1          none       2       2        0        0      2        3 is past the log's end\n",
		"the committed offset is past the log's end: was the topic recreated?\n",
		"a      3          3          3       4        1        0      0        is there already\n",
		"Up to 4 rows", "WARNING: 2 events that were never delivered are SKIPPED",
		"The group has 2 members;", `m-1\u001b[2J`, `c\u000d\nl`, "A member with an instance id may stay listed",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("got\n%s\nwant %q in it", text, want)
		}
	}
	const alone = "Or set enabled: false in orders alone: it leaves its group"
	if r.integration = "orders"; strings.Contains(text, alone) || !strings.Contains(textOf(r.text), alone) {
		t.Errorf("got\n%s\nand\n%s\nwant %q for an integration other than default", text, textOf(r.text), alone)
	}
	if strings.ContainsAny(text, "\x1b\r") {
		t.Errorf("got %q, want no control characters of a member's", text)
	}
	if got := strings.Join(r.Offsets(), " "); got != "a/0:9->5 a/1:none->2 a/2:7->3" {
		t.Errorf("got %q for the audit line, want the three that change", got)
	}
}

// A replay that fails after it has committed, or in the middle, is in the audit,
// too: the offsets may be others now.
func TestFailedReplayIsAudited(t *testing.T) {
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "events"))
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	var committed atomic.Bool
	fake.ControlKey(int16(kmsg.OffsetCommit), func(kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		committed.Store(true)
		return nil, nil, false
	})
	fake.ControlKey(int16(kmsg.OffsetFetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		if !committed.Load() {
			return nil, nil, false
		}
		return kafkatest.RefusedOffsets(r.(*kmsg.OffsetFetchRequest), kerr.GroupAuthorizationFailed), nil, true
	})
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte("kafka: {brokers: ["+fake.ListenAddrs()[0]+"], topics: [events]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	code := execute([]string{"replay", "--config", file, "--to", "earliest", "--execute", "--reason", "a fixed blueprint"}, strings.NewReader(""), &stdout, &stderr)
	if code != exitFailed || !committed.Load() {
		t.Fatalf("got exit code %d, committed %v and %q, want a failure after the commit", code, committed.Load(), stderr.String())
	}
	for _, want := range []string{"replay: failed; its offsets may be committed", `"reason":"a fixed blueprint"`, `"by":"`, "events/0:none->0"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("got %q, want %q in it", stderr.String(), want)
		}
	}
}
